//! A wide statement of the extended protocol: the rest of the group that its Bind belongs to.

use crate::error::{Fault, SqlState};
use crate::planner::plan::Route;
use crate::wire::backend;
use crate::wire::frontend::{self, Target};

use super::{Conversation, End, Trouble, Wide, carry_out, report};

/// Answers the group that a Bind of a wide statement belongs to, up to its Sync.
///
/// The statement is a transaction of its own, so another one in the same group is refused.
pub(super) async fn run<C: Conversation>(client: &mut C, wide: &Wide) -> Result<(), End> {
    client.answer_parses();
    client.reply(backend::bind_complete);
    let mut describe = false;
    let mut executed = false;
    let mut failed = false;
    loop {
        let (tag, body) = client.next_message().await?;
        let outcome = match tag {
            b'S' => {
                client.reply_ready();
                return Ok(());
            }
            b'X' => return Err(End::Client),
            b'H' | b'c' | b'f' => Ok(true),
            _ if failed => Ok(true),
            b'D' if !executed => match frontend::describe(&body) {
                Ok(Target::Portal(_)) => {
                    describe = true;
                    Ok(true)
                }
                Ok(Target::Statement(_)) | Err(_) => {
                    report(client, Err(Trouble::Fault(one_at_a_time())))
                }
            },
            b'E' if !executed => {
                executed = true;
                let result = match frontend::execute(&body) {
                    Ok(execute) if execute.max_rows == 0 => Ok(()),
                    Ok(_)
                        if matches!(wide.route, Route::CopySplit(_) | Route::Broadcast { .. }) =>
                    {
                        Ok(())
                    }
                    Ok(_) => Err(Trouble::Fault(row_limit())),
                    Err(malformed) => Err(Trouble::Fault(malformed.into())),
                };
                let result = match result {
                    Ok(()) => {
                        // DDL and COPY have no rows to describe.
                        if describe && matches!(wide.route, Route::CopySplit(_)) {
                            client.reply(backend::no_data);
                        }
                        carry_out(client, wide, describe).await
                    }
                    Err(trouble) => Err(trouble),
                };
                report(client, result)
            }
            b'C' => {
                client.reply(backend::close_complete);
                Ok(true)
            }
            _ => report(client, Err(Trouble::Fault(one_at_a_time()))),
        };
        failed |= !outcome?;
    }
}

fn one_at_a_time() -> Fault {
    Fault::error(
        SqlState::FEATURE_NOT_SUPPORTED,
        "a statement over several shards must be followed by Sync",
    )
    .detail("It is a transaction of its own; other statements before the Sync would belong to it.")
    .hint("Send it outside the pipeline, or sync after it.")
}

fn row_limit() -> Fault {
    Fault::error(
        SqlState::FEATURE_NOT_SUPPORTED,
        "a row limit on a statement over several shards is not supported yet",
    )
    .hint("Fetch all rows, or add the key to the statement so that one shard answers it.")
}
