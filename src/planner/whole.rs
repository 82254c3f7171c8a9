//! Whether the groups of a read are each on one shard, so that each shard's answer is a part of the whole one:
//! GROUP BY, DISTINCT and the PARTITION BY of every window hold all columns of a key.

use crate::planner::calls;
use crate::planner::facts::Node;
use crate::planner::functions;
use crate::planner::scope;
use crate::planner::survey::Survey;
use crate::sql::clauses::{Clauses, split};
use crate::sql::cursor::{Cursor, word_name};
use crate::sql::scan::{Kind, Token};
use crate::sql::statement::{Block, Expr, Features, Item, Select};

/// What was found.
pub(super) struct Whole {
    /// Whether the values of literals were looked at.
    pub exact: bool,
}

/// `covers` says whether columns hold all of a key that every row of the answer has. `None` where a group may be
/// on several shards.
pub(super) fn check(
    survey: &Survey<'_>,
    block: &Block,
    select: &Select,
    cursor: &Cursor<'_>,
    covers: &dyn Fn(&[Node]) -> bool,
) -> Option<Whole> {
    let features = block.inner.features;
    let clauses = Clauses::find(cursor.tokens(), cursor.text())?;
    let mut reader = Reader {
        survey,
        select,
        tokens: cursor.tokens(),
        text: cursor.text(),
        exact: false,
    };
    if !survey.calls.iter().all(|call| is_alike(survey, call)) {
        return None;
    }
    let is_grouped = features.has(Features::GROUP_BY);
    if is_grouped && !covers(&reader.group(clauses.group.as_deref()?)?) {
        return None;
    }
    if !is_grouped && (features.has(Features::HAVING) || !reader.is_windowed()) {
        return None;
    }
    if let Some(on) = &clauses.distinct {
        let nodes = if on.is_empty() {
            let items = select.projection.iter().enumerate();
            items.filter_map(|(at, _)| reader.item(at)).collect()
        } else {
            on.iter()
                .filter_map(|range| reader.key(range.clone()))
                .collect::<Vec<_>>()
        };
        if !covers(&nodes) {
            return None;
        }
    } else if features.has(Features::DISTINCT) {
        return None;
    }
    if features.has(Features::WINDOW) {
        for partition in reader.windows()? {
            let nodes: Vec<Node> = partition
                .into_iter()
                .filter_map(|it| reader.key(it))
                .collect();
            if !covers(&nodes) {
                return None;
            }
        }
    }
    Some(Whole {
        exact: reader.exact,
    })
}

/// Whether a call answers alike on every shard for the same rows.
fn is_alike(survey: &Survey<'_>, call: &crate::sql::statement::Call) -> bool {
    use crate::placement::code::Volatility;
    let name = &call.name;
    if calls::is_plain(survey.context, name) {
        return true;
    }
    match calls::routine(survey.context, name) {
        None => functions::is_grouping(name),
        Some(code) => {
            let shared = survey.context.catalog.routines.is_shared(&name.name);
            code.gathers
                && code.volatility != Volatility::Volatile
                && !code.unlike
                && (!shared || functions::is_grouping(name))
        }
    }
}

struct Reader<'s, 'a> {
    survey: &'s Survey<'a>,
    select: &'s Select,
    tokens: &'s [Token],
    text: &'s [u8],
    exact: bool,
}

type Range = std::ops::Range<usize>;

impl Reader<'_, '_> {
    /// The key columns among the items of GROUP BY; `None` where it has several sets of them.
    fn group(&mut self, items: &[Range]) -> Option<Vec<Node>> {
        let mut nodes = Vec::new();
        for item in items {
            let tokens = self.tokens.get(item.clone())?;
            let first = tokens.first()?;
            let word = word_name(*first, self.text).unwrap_or_default();
            let is_several = first.kind == Kind::Word
                && matches!(
                    word.as_str(),
                    "grouping" | "rollup" | "cube" | "all" | "distinct"
                );
            let is_empty = matches!(tokens, [open, close] if open.kind == Kind::OpenParen && close.kind == Kind::CloseParen);
            if is_several || is_empty {
                return None;
            }
            nodes.extend(self.grouped(tokens));
        }
        Some(nodes)
    }

    /// The node that an item of GROUP BY is: a column first, then a name or a number of the target list
    /// (`findTargetlistEntrySQL92`).
    fn grouped(&mut self, tokens: &[Token]) -> Option<Node> {
        if let [number] = tokens
            && number.kind == Kind::Integer
        {
            self.exact = true;
            let number = std::str::from_utf8(number.of(self.text)).ok()?;
            return self.item(number.parse::<usize>().ok()?.checked_sub(1)?);
        }
        let mut cursor = Cursor::new(self.text, tokens);
        let parts = cursor.parts().filter(|_| cursor.is_done())?;
        if let Some(node) = self.column(&parts) {
            return Some(node);
        }
        let [name] = parts.as_slice() else {
            return None;
        };
        if self.may_be_column(name) {
            return None;
        }
        let mut items = self.select.projection.iter().enumerate();
        let (at, _) = items.find(
            |(_, item)| matches!(item, Item::Expr { alias: Some(alias), .. } if alias == name),
        )?;
        self.item(at)
    }

    /// The node that an item of the target list is.
    fn item(&self, at: usize) -> Option<Node> {
        let before = self.select.projection.get(..at)?;
        if before.iter().any(|item| matches!(item, Item::Star(_))) {
            return None;
        }
        match self.select.projection.get(at)? {
            Item::Expr {
                expr: Expr::Column(parts),
                ..
            } => self.column(parts),
            Item::Expr { .. } | Item::Star(_) => None,
        }
    }

    /// The node that an expression is which is no name of the target list.
    fn key(&self, range: Range) -> Option<Node> {
        let mut cursor = Cursor::new(self.text, self.tokens.get(range)?);
        let parts = cursor.parts().filter(|_| cursor.is_done())?;
        if let [name] = parts.as_slice() {
            // In DISTINCT ON it is a column of the answer first.
            let mut items = self.select.projection.iter();
            let is_other = items.any(|item| match item {
                Item::Expr { expr, alias } => {
                    alias.as_ref() == Some(name)
                        && !matches!(expr, Expr::Column(own) if own.last() == Some(name))
                }
                Item::Star(_) => false,
            });
            if is_other {
                return None;
            }
        }
        self.column(&parts)
    }

    fn column(&self, parts: &[String]) -> Option<Node> {
        let level = &self.survey.outermost;
        scope::resolve(std::slice::from_ref(level), parts, &level.all())
    }

    /// Whether a name may be a column of a table in FROM.
    fn may_be_column(&self, name: &str) -> bool {
        let mut bindings = self.survey.outermost.bindings.iter();
        bindings.any(|binding| match &binding.columns {
            Some(columns) => {
                let mut columns = columns.iter();
                columns.any(|it| it.name.as_ref().is_none_or(|own| own == name))
            }
            None => true,
        })
    }

    /// Whether every aggregate is called over a window.
    fn is_windowed(&self) -> bool {
        let mut cursor = Cursor::new(self.text, self.tokens);
        while let Some(token) = cursor.advance() {
            let calls = cursor.kind() == Some(Kind::OpenParen);
            let Some(name) = word_name(token, self.text).filter(|_| calls) else {
                continue;
            };
            let name = crate::sql::cursor::Name { schema: None, name };
            if calls::is_plain(self.survey.context, &name) || !self.is_called(&name.name) {
                continue;
            }
            let mut behind = cursor;
            behind.skip_group();
            if behind.take("filter") {
                behind.skip_group();
            }
            if !behind.at("over") {
                return false;
            }
        }
        true
    }

    fn is_called(&self, name: &str) -> bool {
        self.survey.calls.iter().any(|call| call.name.name == name)
    }

    /// What each window is partitioned by; `None` where one is not partitioned, or not by itself.
    fn windows(&self) -> Option<Vec<Vec<Range>>> {
        let mut found = Vec::new();
        for at in 0..self.tokens.len() {
            let is_word = |at: usize, word: &str| {
                let token = self.tokens.get(at);
                token.is_some_and(|token| {
                    token.kind == Kind::Word
                        && token.of(self.text).eq_ignore_ascii_case(word.as_bytes())
                })
            };
            let open = at.checked_add(1)?;
            let opens = self
                .tokens
                .get(open)
                .is_some_and(|it| it.kind == Kind::OpenParen);
            let is_defined = is_word(at, "as")
                && at.checked_sub(2).is_some_and(|before| {
                    let comma = self
                        .tokens
                        .get(before)
                        .is_some_and(|it| it.kind == Kind::Comma);
                    is_word(before, "window") || comma
                });
            if !opens || !(is_word(at, "over") || is_defined) {
                continue;
            }
            let mut cursor = Cursor::new(self.text, self.tokens.get(open..)?);
            cursor.skip_group();
            let close = self
                .tokens
                .len()
                .checked_sub(cursor.tokens().len())?
                .checked_sub(1)?;
            let start = open.checked_add(3)?;
            if !is_word(open.checked_add(1)?, "partition") || !is_word(open.checked_add(2)?, "by") {
                return None;
            }
            let end = (start..close)
                .find(|at| {
                    ["order", "rows", "range", "groups"]
                        .iter()
                        .any(|word| is_word(*at, word))
                })
                .unwrap_or(close);
            found.push(split(self.tokens, start..end));
        }
        Some(found)
    }
}
