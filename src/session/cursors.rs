//! Where the cursors of a block are: each on the shard that it was declared on.

use crate::placement::ShardId;
use crate::planner::plan::Statement;
use crate::sql::cursor::Cursor;
use crate::sql::scan::{Kind, scan};

use super::Session;

/// Cursors of one block that are told apart; those beyond are taken to be where the last one is.
const CURSORS_MAX: usize = 1_000;

impl Session {
    /// Notes where a cursor is declared.
    pub(crate) fn note_cursor(&mut self, shard: ShardId, statement: &Statement, text: &[u8]) {
        if statement.verb != "DECLARE CURSOR" || self.block.is_none() {
            return;
        }
        let name = self.names_in(text).into_iter().nth(1);
        if let (Some(name), Some(block)) = (name, &mut self.block) {
            block.cursors.retain(|(known, _)| *known != name);
            if block.cursors.len() < CURSORS_MAX {
                block.cursors.push((name, shard));
            }
        }
    }

    /// The shard of the cursor that a statement is about; `None` where it is not known.
    pub(crate) fn cursor_shard(&mut self, statement: &Statement, text: &[u8]) -> Option<ShardId> {
        let is_about = matches!(statement.verb, "FETCH" | "MOVE" | "CLOSE CURSOR");
        let block = self.block.as_ref().filter(|_| is_about)?;
        if block.cursors.is_empty() {
            return None;
        }
        let name = self.names_in(text).pop()?;
        let block = self.block.as_ref()?;
        let known = block.cursors.iter().find(|(known, _)| *known == name);
        known.map(|(_, shard)| *shard)
    }

    /// The words of a text, as names.
    fn names_in(&mut self, text: &[u8]) -> Vec<String> {
        let lexing = self.facts().lexing;
        let Ok(tokens) = scan(text, lexing) else {
            return Vec::new();
        };
        let mut names = Vec::new();
        let mut cursor = Cursor::new(text, &tokens);
        while cursor.kind().is_some_and(|kind| kind != Kind::Semicolon) {
            if let Some(name) = cursor.name() {
                names.push(name);
            } else if cursor.advance().is_none() {
                break;
            }
        }
        names
    }
}
