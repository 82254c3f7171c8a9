//! A client of the console: its frames, its cancel requests and its end.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use crate::net::Stream;
use crate::wire::frame::{self, Split};

use super::client::Client;
use super::console::{Conversation, Next};
use super::startup;

/// Bytes of one message to the console.
const CONSOLE_MESSAGE_MAX: u32 = 1 << 20;

/// Feeds the console with whole frames until one side ends it.
///
/// # Cancel safety
/// Not safe: a drop closes the client in the middle.
pub(super) async fn run(
    mut stream: Stream,
    client: &Rc<Client>,
    mut conversation: Box<dyn Conversation>,
) {
    let mut input = Vec::new();
    let mut out = Vec::new();
    loop {
        let taken = match frame::split(&input, CONSOLE_MESSAGE_MAX) {
            Ok(Split::Whole(frame, rest)) => {
                let used = input.len().saturating_sub(rest.len());
                let answering = conversation.frame(frame.tag, frame.body, &mut out);
                let next = match answer(answering, client).await {
                    Some(next) => next,
                    None => conversation.canceled(&mut out).await,
                };
                if stream.write_all(&out).await.is_err()
                    || stream.flush().await.is_err()
                    || next == Next::Close
                {
                    return;
                }
                out.clear();
                used
            }
            Ok(Split::Part { .. } | Split::Nothing) => {
                let kill = client.kill.borrow_mut().take();
                if let Some(fault) = kill {
                    startup::refuse(
                        &mut stream,
                        &fault.into_fatal(),
                        Instant::now() + Duration::from_secs(1),
                    )
                    .await;
                    return;
                }
                if read_or_signal(&mut stream, client, &mut input)
                    .await
                    .is_none()
                {
                    return;
                }
                0
            }
            Err(_malformed) => return,
        };
        input.drain(..taken);
    }
}

/// The conversation's answer; `None` when the client canceled it.
async fn answer(
    mut answering: Pin<Box<dyn Future<Output = Next> + Send + '_>>,
    client: &Rc<Client>,
) -> Option<Next> {
    poll_fn(|cx| {
        client.register(cx.waker());
        if let Poll::Ready(next) = answering.as_mut().poll(cx) {
            return Poll::Ready(Some(next));
        }
        if client.canceled.take() {
            return Poll::Ready(None);
        }
        Poll::Pending
    })
    .await
}

/// Reads more, or returns when the client is to be looked at. `None` when it left.
async fn read_or_signal(
    stream: &mut Stream,
    client: &Rc<Client>,
    input: &mut Vec<u8>,
) -> Option<()> {
    let mut bytes = [0; 4096];
    let signal = poll_fn(|cx| {
        client.register(cx.waker());
        if client.is_signaled() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    });
    let count = tokio::select! {
        biased;
        // Safe: nothing is taken.
        () = signal => {
            client.canceled.set(false);
            return Some(());
        }
        // Safe: a read that is dropped has read nothing.
        read = stream.read(&mut bytes) => read.ok().filter(|count| *count > 0)?,
    };
    input.extend_from_slice(bytes.get(..count)?);
    Some(())
}
