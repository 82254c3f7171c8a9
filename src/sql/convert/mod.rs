//! sqlparser's tree into our view of it; a node without a word in the view is an error.
//!
//! The tree is consumed from the outside in, and chains of operators along their left side in a
//! loop, so that neither walking nor dropping a long chain needs stack in its length.

mod call;
mod expr;
mod names;
mod opaque;
mod query;
mod source;
mod write;

pub use names::OBJECT_TYPES;

use sqlparser::ast;

use super::parse::Unread;
use super::statement::{Block, Body, Features, Inner};

/// Stack that one level of a statement may need, debug builds included.
const LEVEL_STACK: usize = 512 << 10;
const MORE_STACK: usize = 4 << 20;

/// Runs one level of a recursion whose depth the input decides, up to [`super::parse::DEPTH_MAX`],
/// on more stack where there is too little left.
pub fn with_stack<T>(level: impl FnOnce() -> T) -> T {
    stacker::maybe_grow(LEVEL_STACK, MORE_STACK, level)
}

type Result<T> = std::result::Result<T, Unread>;

/// Turns one statement into a [`Block`].
#[derive(Debug)]
pub(super) struct Converter<'a> {
    text: &'a [u8],
    /// Of the block at hand.
    inner: Inner,
}

impl<'a> Converter<'a> {
    pub(super) fn new(text: &'a [u8]) -> Converter<'a> {
        Converter {
            text,
            inner: Inner::default(),
        }
    }

    pub(super) fn statement(&mut self, statement: ast::Statement) -> Result<Block> {
        if let ast::Statement::Query(query) = statement {
            return self.query(*query);
        }
        self.block(|converter| converter.write(statement))
    }

    /// Reads a level of its own.
    fn block(&mut self, body: impl FnOnce(&mut Self) -> Result<Body>) -> Result<Block> {
        let outer = std::mem::take(&mut self.inner);
        let body = body(self);
        let inner = std::mem::replace(&mut self.inner, outer);
        Ok(Block {
            recursive: false,
            ctes: Vec::new(),
            body: body?,
            inner,
        })
    }

    fn data_type(&mut self, data_type: &ast::DataType) {
        if !names::is_plain_type(data_type) {
            self.feature(Features::TYPE);
        }
        if names::is_object_type(data_type) {
            self.feature(Features::OBJECT);
        }
    }

    fn feature(&mut self, feature: Features) {
        self.inner.features.add(feature);
    }
}

fn unknown<T>(what: &'static str) -> Result<T> {
    Err(Unread::Unknown(what))
}
