//! Takes a statement apart: what the shards group by, what they aggregate, and what is left for the twin.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "signs of other kinds are passed over"
)]

use std::ops::Range;

use super::aggregate::{Aggregate, Kind};
use super::lexeme::{Lexeme, Sign, lexemes, only_word};
use super::{Partial, Piece};
use crate::planner::calls;
use crate::planner::concat;
use crate::planner::gather::{Clock, clock};
use crate::planner::sources::Sources;
use crate::planner::survey::{Rows, Survey};
use crate::sql::clauses::Clauses;
use crate::sql::cursor::{Cursor, Name};
use crate::sql::scan::{Kind as Token, Token as Scanned};
use crate::sql::statement::{Block, Features, Item, Select};

/// Columns that every table has, the twin's own too.
const SYSTEM: [&str; 6] = ["xmin", "xmax", "cmin", "cmax", "ctid", "tableoid"];

/// The statement in two; `None` where that is not known to be right.
pub(in crate::planner) fn check(
    survey: &Survey<'_>,
    block: &Block,
    cursor: Cursor<'_>,
) -> Option<Partial> {
    let (block, select) = concat::one_select(block).ok()?;
    let features = block.inner.features;
    if features.has(Features::WINDOW) || !survey.views.is_empty() || survey.context.tenant {
        return None;
    }
    concat::are_alone(survey).ok()?;
    concat::are_together(survey).ok()?;
    if clock(cursor) != Clock::Unasked {
        return None;
    }
    let clauses = Clauses::find(cursor.tokens(), cursor.text())?;
    let scope = Sources::of(survey.context, select);
    let reader = Reader {
        survey,
        select,
        tokens: cursor.tokens(),
        text: cursor.text(),
        lexemes: lexemes(cursor.tokens(), cursor.text(), &scope),
        scope,
        groups: Vec::new(),
        aggregates: Vec::new(),
        distinct: None,
        calls: 0,
        pieces: Vec::new(),
    };
    reader.read(&clauses, distribution(survey)?)
}

/// The one distribution of all sharded tables.
fn distribution(survey: &Survey<'_>) -> Option<usize> {
    let mut shared = None;
    for reference in &survey.references {
        if let Rows::Sharded { distribution, .. } = reference.place {
            if shared.is_some_and(|shared| shared != distribution) {
                return None;
            }
            shared = Some(distribution);
        }
    }
    shared
}

struct Group {
    signs: Vec<Sign>,
    text: String,
}

struct Reader<'s, 'a> {
    survey: &'s Survey<'a>,
    select: &'s Select,
    tokens: &'s [Scanned],
    text: &'s [u8],
    lexemes: Vec<Lexeme>,
    scope: Sources<'a>,
    groups: Vec<Group>,
    aggregates: Vec<Aggregate>,
    /// What the aggregates of distinct values take.
    distinct: Option<(Vec<Sign>, String)>,
    /// Aggregates met so far, each time that one is.
    calls: usize,
    pieces: Vec<Piece>,
}

impl Reader<'_, '_> {
    fn read(mut self, clauses: &Clauses, distribution: usize) -> Option<Partial> {
        let items = self.items(clauses)?;
        let is_distinct = clauses.distinct.as_ref().is_some_and(Vec::is_empty);
        let mut ordinals = 0;
        match &clauses.group {
            Some(group) => {
                for item in group {
                    self.group(item.clone(), &items)?;
                }
            }
            None if is_distinct && clauses.having.is_none() && !self.aggregates_at_all() => {
                for item in &items {
                    self.add_group(item.clone())?;
                }
                ordinals = items.len();
            }
            None => (),
        }
        let own_groups = self.groups.len();
        let from = self.source(&clauses.from)?;
        self.put("SELECT ");
        if let Some(on) = &clauses.distinct {
            self.put("DISTINCT ");
            if !on.is_empty() {
                self.put("ON (");
                for (number, key) in on.iter().enumerate() {
                    self.comma(number);
                    self.sort_key(key.clone())?;
                }
                self.put(") ");
            }
        }
        for (number, item) in items.iter().enumerate() {
            self.comma(number);
            self.expression(item.clone())?;
            self.pieces.push(Piece::Label(number));
        }
        self.pieces.push(Piece::Table);
        if clauses.group.is_some() {
            for number in 0..own_groups {
                self.put(if number == 0 { " GROUP BY " } else { ", " });
                self.pieces.push(Piece::Group(number));
            }
        }
        if let Some(having) = &clauses.having {
            self.put(" HAVING ");
            self.expression(having.clone())?;
        }
        for (number, key) in clauses.order.iter().enumerate() {
            self.put(if number == 0 { " ORDER BY " } else { ", " });
            self.sort_key(key.clone())?;
        }
        if !clauses.limit.is_empty() {
            self.put(" ");
            self.expression(clauses.limit.clone())?;
        }
        if self.groups.is_empty() && self.aggregates.is_empty() {
            return None;
        }
        let strange = self.survey.calls.iter();
        let strange = strange.filter(|call| !calls::is_plain(self.survey.context, &call.name));
        // Each one is met once; what is distinct alone meets none.
        if strange.count() != self.calls || ordinals > 0 && self.calls > 0 {
            return None;
        }
        let mut groups: Vec<String> = self.groups.into_iter().map(|group| group.text).collect();
        groups.extend(self.distinct.map(|(_, text)| text));
        let mut partial = Partial {
            distribution,
            groups,
            aggregates: self.aggregates,
            from,
            pieces: self.pieces,
        };
        partial.place_distinct();
        Some(partial)
    }

    /// The expressions of the target list, without the names behind them.
    fn items(&self, clauses: &Clauses) -> Option<Vec<Range<usize>>> {
        if clauses.items.len() != self.select.projection.len() {
            return None;
        }
        let pairs = clauses.items.iter().zip(&self.select.projection);
        let item = |(range, item): (&Range<usize>, &Item)| {
            let Item::Expr { alias, .. } = item else {
                return None;
            };
            let mut end = range.end;
            if alias.is_some() {
                end = end.checked_sub(1)?;
                let before = self.tokens.get(end.checked_sub(1)?)?;
                let is_as =
                    before.kind == Token::Word && before.of(self.text).eq_ignore_ascii_case(b"as");
                end = end.checked_sub(usize::from(is_as))?;
            }
            (range.start < end).then_some(range.start..end)
        };
        pairs.map(item).collect()
    }

    fn aggregates_at_all(&self) -> bool {
        let mut calls = self.survey.calls.iter();
        calls.any(|call| !calls::is_plain(self.survey.context, &call.name))
    }

    /// An item of GROUP BY: a column first, then a name or a number of the target list
    /// (`findTargetlistEntrySQL92`).
    fn group(&mut self, item: Range<usize>, items: &[Range<usize>]) -> Option<()> {
        let tokens = self.tokens.get(item.clone())?;
        if let [number] = tokens
            && number.kind == Token::Integer
        {
            let number = std::str::from_utf8(number.of(self.text)).ok()?;
            let number = number.parse::<usize>().ok()?.checked_sub(1)?;
            return self.add_group(items.get(number)?.clone());
        }
        if let Some(name) = only_word(tokens, self.text) {
            let mut named = self.select.projection.iter().enumerate().filter(
                |(_, item)| matches!(item, Item::Expr { alias: Some(alias), .. } if *alias == name),
            );
            let first = named.next();
            if let Some((at, _)) = first
                && !(self.scope.is_whole && self.scope.may_have(&name))
            {
                if self.scope.may_have(&name) || named.next().is_some() {
                    return None;
                }
                return self.add_group(items.get(at)?.clone());
            }
        }
        self.add_group(item)
    }

    fn add_group(&mut self, range: Range<usize>) -> Option<()> {
        let text = self.source(&range)?;
        let signs = self.signs(range)?;
        // No several sets of groups, no row of them, no constant, and nothing that is not known here.
        let mut depth = 0_usize;
        let mut names = false;
        for sign in &signs {
            match sign {
                Sign::Open => depth = depth.checked_add(1)?,
                Sign::Close => depth = depth.checked_sub(1)?,
                Sign::Comma if depth == 0 => return None,
                Sign::Call(parts) => {
                    let name = parts.last().map(String::as_str);
                    if matches!(name, Some("grouping" | "rollup" | "cube" | "sets"))
                        || self.kind(parts).is_some()
                    {
                        return None;
                    }
                    names = true;
                }
                Sign::Name(name, false)
                    if matches!(name.as_str(), "select" | "grouping" | "all" | "distinct") =>
                {
                    return None;
                }
                Sign::Name(..) | Sign::Dotted(_) | Sign::Column(..) => names = true,
                Sign::Comma | Sign::Type(_) | Sign::Other(_) => (),
            }
        }
        if !names {
            return None;
        }
        if !self.groups.iter().any(|group| group.signs == signs) {
            self.groups.push(Group { signs, text });
        }
        Some(())
    }

    /// The signs of an expression, without parentheses around all of it.
    fn signs(&self, range: Range<usize>) -> Option<Vec<Sign>> {
        let lexemes = self.lexemes_of(&range);
        let mut signs: &[Lexeme] = lexemes;
        while let [first, inner @ .., last] = signs
            && first.sign == Sign::Open
            && last.sign == Sign::Close
            && closes_last(inner)
        {
            signs = inner;
        }
        (!signs.is_empty()).then(|| signs.iter().map(|it| it.sign.clone()).collect())
    }

    fn lexemes_of(&self, range: &Range<usize>) -> &[Lexeme] {
        let start = self
            .lexemes
            .partition_point(|it| it.tokens.start < range.start);
        let end = self
            .lexemes
            .partition_point(|it| it.tokens.end <= range.end);
        self.lexemes.get(start..end).unwrap_or_default()
    }

    /// The text of some tokens.
    fn source(&self, range: &Range<usize>) -> Option<String> {
        let tokens = self.tokens.get(range.clone())?;
        let (first, last) = (tokens.first()?, tokens.last()?);
        let text = self.text.get(first.start..last.end)?;
        Some(std::str::from_utf8(text).ok()?.to_owned())
    }

    fn put(&mut self, text: &str) {
        if let Some(Piece::Text(last)) = self.pieces.last_mut() {
            last.push_str(text);
        } else {
            self.pieces.push(Piece::Text(text.to_owned()));
        }
    }

    fn comma(&mut self, number: usize) {
        if number > 0 {
            self.put(", ");
        }
    }

    /// A key of ORDER BY or DISTINCT ON: a name alone is a column of the answer first.
    fn sort_key(&mut self, range: Range<usize>) -> Option<()> {
        let lexemes = self.lexemes_of(&range);
        let is_alone = match lexemes.get(1).map(|it| &it.sign) {
            None => true,
            Some(Sign::Name(word, false)) => {
                matches!(word.as_str(), "asc" | "desc" | "nulls" | "using")
            }
            Some(_) => false,
        };
        let first = lexemes.first()?.clone();
        let name = only_word(self.tokens.get(first.tokens.clone())?, self.text);
        if let (true, Some(name)) = (is_alone, name) {
            let group = self
                .groups
                .iter()
                .position(|it| it.signs == [first.sign.clone()]);
            let written = self.source(&first.tokens)?;
            match group {
                Some(group) => self.pieces.push(Piece::Name {
                    name,
                    written,
                    group,
                }),
                None => self.put(&written),
            }
            let rest = self.source(&(first.tokens.end..range.end));
            if let Some(rest) = rest.filter(|_| first.tokens.end < range.end) {
                self.put(" ");
                self.put(&rest);
            }
            return Some(());
        }
        self.expression(range)
    }

    /// An expression for the twin.
    fn expression(&mut self, range: Range<usize>) -> Option<()> {
        let lexemes = self.lexemes_of(&range).to_vec();
        let mut at = 0;
        let mut end = self.tokens.get(range.start)?.start;
        while let Some(lexeme) = lexemes.get(at) {
            let start = self.tokens.get(lexeme.tokens.start)?.start;
            let between = self.text.get(end..start)?;
            self.put(std::str::from_utf8(between).ok()?);
            let taken = self.piece(&lexemes, at)?;
            at = at.checked_add(taken)?;
            let last = lexemes.get(at.checked_sub(1)?)?;
            end = self.tokens.get(last.tokens.end.checked_sub(1)?)?.end;
        }
        Some(())
    }

    /// What begins at a sign, and how many of them it is.
    fn piece(&mut self, lexemes: &[Lexeme], at: usize) -> Option<usize> {
        let here = lexemes.get(at)?;
        if let Sign::Call(parts) = &here.sign
            && let Some(kind) = self.kind(parts)
        {
            return self.aggregate(kind, lexemes, at);
        }
        if let Some((group, taken)) = self.group_at(lexemes, at) {
            self.pieces.push(Piece::Group(group));
            return Some(taken);
        }
        match &here.sign {
            Sign::Column(..) | Sign::Dotted(_) => return None,
            Sign::Name(name, _) if SYSTEM.contains(&name.as_str()) || name == "select" => {
                return None;
            }
            _ => (),
        }
        let written = self.source(&here.tokens)?;
        self.put(&written);
        Some(1)
    }

    /// The longest group whose expression stands here as a whole.
    fn group_at(&self, lexemes: &[Lexeme], at: usize) -> Option<(usize, usize)> {
        let rest = lexemes.get(at..)?;
        let before = at
            .checked_sub(1)
            .and_then(|at| lexemes.get(at))
            .map(|it| &it.sign);
        if matches!(before, Some(Sign::Other(bytes)) if bytes == b".") {
            return None;
        }
        let fits = |group: &Group| {
            let count = group.signs.len();
            let own = rest.get(..count)?;
            if !own
                .iter()
                .zip(&group.signs)
                .all(|(own, sign)| own.sign == *sign)
            {
                return None;
            }
            let after = rest.get(count).map(|it| &it.sign);
            let is_primary = match group.signs.as_slice() {
                [Sign::Call(_), Sign::Open, inner @ .., Sign::Close] => are_closed(inner),
                [_] => true,
                _ => false,
            };
            let is_apart = matches!(before, None | Some(Sign::Open | Sign::Comma))
                && matches!(after, None | Some(Sign::Close | Sign::Comma));
            (is_primary || is_apart).then_some(count)
        };
        let groups = self.groups.iter().enumerate();
        let found = groups.filter_map(|(number, group)| Some((number, fits(group)?)));
        found.max_by_key(|(_, count)| *count)
    }

    /// The aggregate that a name means, if PostgreSQL's own is meant.
    fn kind(&self, parts: &[String]) -> Option<Kind> {
        let (schema, name) = match parts {
            [name] => (None, name),
            [schema, name] if schema == "pg_catalog" => (Some(schema.clone()), name),
            _ => return None,
        };
        let kind = Kind::named(name)?;
        let name = Name {
            schema,
            name: name.clone(),
        };
        calls::routine(self.survey.context, &name)
            .is_none()
            .then_some(kind)
    }

    fn aggregate(&mut self, kind: Kind, lexemes: &[Lexeme], at: usize) -> Option<usize> {
        let open = at.checked_add(1)?;
        let close = closing(lexemes, open)?;
        let mut start = open.checked_add(1)?;
        let is_word = |at: usize, word: &str| matches!(lexemes.get(at).map(|it| &it.sign), Some(Sign::Name(name, false)) if name == word);
        let is_distinct = is_word(start, "distinct");
        if is_distinct || is_word(start, "all") {
            start = start.checked_add(1)?;
        }
        let arguments = lexemes.get(start..close)?;
        let is_odd = arguments.iter().any(|it| {
            matches!(&it.sign, Sign::Name(name, false) if matches!(name.as_str(), "order" | "select"))
        });
        let (first, last) = (arguments.first()?, arguments.last()?);
        if is_odd {
            return None;
        }
        let range = first.tokens.start..last.tokens.end;
        let argument = self.source(&range)?;
        let mut end = close.checked_add(1)?;
        let mut filter = String::new();
        if is_call(lexemes, end, "filter") {
            let close = closing(lexemes, end.checked_add(1)?)?;
            let first = lexemes.get(end)?;
            let last = lexemes.get(close)?;
            if lexemes
                .get(end..close)?
                .iter()
                .any(|it| matches!(&it.sign, Sign::Name(name, false) if name == "select"))
            {
                return None;
            }
            filter = format!(" {}", self.source(&(first.tokens.start..last.tokens.end))?);
            end = close.checked_add(1)?;
        }
        if is_word(end, "over") || is_call(lexemes, end, "over") || is_word(end, "within") {
            return None;
        }
        let kind = if is_distinct {
            if !filter.is_empty()
                || arguments.iter().any(|it| it.sign == Sign::Comma) && has_comma(arguments)
            {
                return None;
            }
            let signs = self.signs(range)?;
            if self
                .distinct
                .as_ref()
                .is_some_and(|(known, _)| *known != signs)
            {
                return None;
            }
            self.distinct.get_or_insert((signs, argument.clone()));
            kind.distinct(usize::MAX)?
        } else {
            kind
        };
        let aggregate = Aggregate {
            kind,
            argument,
            filter,
        };
        let known = self.aggregates.iter().position(|it| *it == aggregate);
        let number = known.unwrap_or_else(|| {
            self.aggregates.push(aggregate);
            self.aggregates.len().saturating_sub(1)
        });
        self.pieces.push(Piece::Aggregate(number));
        self.calls = self.calls.saturating_add(1);
        end.checked_sub(at)
    }
}

impl Partial {
    /// Tells the aggregates of distinct values which group those are: the last.
    fn place_distinct(&mut self) {
        let last = self.groups.len().saturating_sub(1);
        for aggregate in &mut self.aggregates {
            if let Kind::Distinct(_, group) = &mut aggregate.kind {
                *group = last;
            }
        }
    }
}

/// Whether a comma stands outside of parentheses.
fn has_comma(lexemes: &[Lexeme]) -> bool {
    let mut depth = 0_usize;
    lexemes.iter().any(|lexeme| {
        match lexeme.sign {
            Sign::Open => depth = depth.saturating_add(1),
            Sign::Close => depth = depth.saturating_sub(1),
            _ => (),
        }
        depth == 0 && lexeme.sign == Sign::Comma
    })
}

fn is_call(lexemes: &[Lexeme], at: usize, word: &str) -> bool {
    matches!(lexemes.get(at).map(|it| &it.sign), Some(Sign::Call(parts)) if parts == &[word])
}

/// The sign that closes what opens at `open`.
fn closing(lexemes: &[Lexeme], open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, lexeme) in lexemes.iter().enumerate().skip(open) {
        match lexeme.sign {
            Sign::Open => depth = depth.checked_add(1)?,
            Sign::Close => depth = depth.checked_sub(1)?,
            _ => (),
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// Whether what stands between two parentheses closes only what it opens.
fn closes_last(inner: &[Lexeme]) -> bool {
    are_closed(&inner.iter().map(|it| it.sign.clone()).collect::<Vec<_>>())
}

fn are_closed(signs: &[Sign]) -> bool {
    let mut depth = 0_usize;
    for sign in signs {
        match sign {
            Sign::Open => depth = depth.saturating_add(1),
            Sign::Close => match depth.checked_sub(1) {
                Some(less) => depth = less,
                None => return false,
            },
            _ => (),
        }
    }
    depth == 0
}
