//! Patterns of file names, for those who list folders: `*` and `?` in the last part of a path.

/// A pattern's folder and the pattern of its last part; the folder is `.` when it has none.
pub fn split(pattern: &str) -> (&str, &str) {
    match pattern.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some(parts) => parts,
        None => (".", pattern),
    }
}

/// Whether a file's name fits the pattern: `*` is any characters, `?` is one. Names that start with
/// a dot only fit a pattern that does.
pub fn matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    // Where to go on when a try fails: after the last star, one character further.
    let mut retry: Option<(&str, &str)> = None;
    let (mut pattern, mut name) = (pattern, name);
    loop {
        let (mut rest, mut chars) = (pattern.chars(), name.chars());
        match (rest.next(), chars.next()) {
            (None, None) => return true,
            (Some('*'), _) => {
                pattern = rest.as_str();
                retry = Some((pattern, name));
            }
            (Some(wanted), Some(found)) if wanted == '?' || wanted == found => {
                (pattern, name) = (rest.as_str(), chars.as_str());
            }
            (_, _) => {
                let Some((after, from)) = retry else {
                    return false;
                };
                let mut chars = from.chars();
                if chars.next().is_none() {
                    return false;
                }
                retry = Some((after, chars.as_str()));
                (pattern, name) = (after, chars.as_str());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{matches, split};

    #[test]
    fn names_fit_patterns() {
        for (pattern, name, fits) in [
            ("*.yaml", "a.yaml", true),
            ("*.yaml", "a.yml", false),
            ("*.yaml", ".yaml", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*a*b", "xaxxb", true),
            ("*a*b", "xaxxbx", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            (".*", ".x", true),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn the_folder_is_split_off() {
        assert_eq!(split("tables/*.yaml"), ("tables", "*.yaml"));
        assert_eq!(split("/*.yaml"), ("/", "*.yaml"));
        assert_eq!(split("*.yaml"), (".", "*.yaml"));
    }
}
