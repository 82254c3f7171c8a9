//! Keeps the twins of a database current: looks at them, and makes again those that are behind.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::config::Twin;
use crate::control::Control;
use crate::control::twins::Made;
use crate::error::{Fault, SqlState};

use super::engine::Shared;
use super::twins::Condition;

/// How long a twin may take to be looked at.
const LOOK_WAIT: Duration = Duration::from_secs(5);

/// A look at a twin.
type Look = Result<Option<Made>, Fault>;

impl Shared {
    /// At least one twin of a database has the home shard's schema, as far as is known: at once when nothing
    /// has changed since it was made, else when it has been made again, within `gather.timeout`.
    ///
    /// # Errors
    /// 55000 when none has.
    ///
    /// # Cancel safety
    /// Safe: nothing is held.
    pub async fn twins_are_current(&self, name: &str) -> Result<(), Fault> {
        let limit = self.snapshot.load().config.gather.timeout;
        self.database(name).twins.current(limit).await
    }

    /// Looks at the twins of a database if something may have changed, or `thoroughly`, and makes those again
    /// that are behind. Their databases are there or not: `pgherd setup` creates them.
    ///
    /// # Errors
    /// What kept it from doing so; it is to be tried again.
    ///
    /// # Cancel safety
    /// Safe: those made stay made.
    pub async fn follow_twins(
        self: &Arc<Shared>,
        name: &str,
        thoroughly: bool,
    ) -> Result<(), Fault> {
        let twins = Arc::clone(&self.database(name).twins);
        let asked = twins.asked();
        let result = self.follow(name, thoroughly).await;
        let ready = twins.ready();
        // Who waits hears why no twin is ready, rather than that none is.
        let told = match (&result, ready) {
            (Err(fault), Err(_)) => Err(fault.clone()),
            (_, ready) => ready,
        };
        twins.conclude(asked, told);
        result
    }

    async fn follow(self: &Arc<Shared>, name: &str, thoroughly: bool) -> Result<(), Fault> {
        let control = Arc::clone(&self.snapshot.load().control);
        let twins = Arc::clone(&self.database(name).twins);
        let list = control.twins(name)?;
        if list.is_empty() {
            twins.set(Vec::new(), "");
            return Ok(());
        }
        let mark = control.schema_mark(name).await?;
        if !thoroughly && twins.follow(&list, &mark) {
            return Ok(());
        }
        let all: Vec<usize> = (0..list.len()).collect();
        let looks = self.look(&control, name, &all).await;
        let behind: Vec<usize> = looks
            .iter()
            .enumerate()
            .filter(|(_, look)| is_behind(look, &mark))
            .map(|(index, _)| index)
            .collect();
        if behind.is_empty() {
            self.refresh_twin_oids(name).await?;
            twins.set(conditions(list, looks, &mark), &mark);
            return Ok(());
        }
        twins.set_behind(&behind);
        let blueprint = Arc::new(control.blueprint(name).await?);
        let making: Vec<(usize, JoinHandle<Result<bool, Fault>>)> = behind
            .iter()
            .map(|&index| {
                let (control, blueprint) = (Arc::clone(&control), Arc::clone(&blueprint));
                let name = name.to_owned();
                let make = async move { control.make_twin(&name, index, &blueprint).await };
                (index, self.control_runtime.spawn(make))
            })
            .collect();
        let mut failed = None;
        for (index, making) in making {
            match making.await {
                Ok(Ok(changed)) => {
                    tracing::debug!(database = %name, twin = index + 1, changed, "made a twin again");
                }
                Ok(Err(fault)) => {
                    tracing::warn!(database = %name, twin = index + 1, error = %fault, "could not make a twin again");
                    failed = Some(fault);
                }
                Err(error) => {
                    tracing::error!(database = %name, twin = index + 1, %error, "making a twin failed");
                }
            }
        }
        let looks = self.look(&control, name, &all).await;
        self.refresh_twin_oids(name).await?;
        twins.set(conditions(list, looks, &blueprint.mark), &blueprint.mark);
        if blueprint.mark != mark {
            // Those that were current by the mark before are behind now.
            twins.ask();
        }
        failed.map_or(Ok(()), Err)
    }

    /// Looks at all of these twins at once.
    async fn look(&self, control: &Arc<Control>, name: &str, indexes: &[usize]) -> Vec<Look> {
        let start = |&index: &usize| {
            let (control, name) = (Arc::clone(control), name.to_owned());
            self.control_runtime.spawn(async move {
                tokio::time::timeout(LOOK_WAIT, control.twin(&name, index)).await
            })
        };
        let under_way: Vec<_> = indexes.iter().map(start).collect();
        let mut looks = Vec::with_capacity(under_way.len());
        for look in under_way {
            looks.push(match look.await {
                Ok(Ok(look)) => look,
                Ok(Err(_)) | Err(_) => Err(Fault::error(
                    SqlState::UNABLE_TO_CONNECT,
                    "a twin did not answer in time",
                )),
            });
        }
        looks
    }

    /// Reads what the twins of a database call the users' types. One that does not answer keeps what was
    /// known.
    ///
    /// # Errors
    /// Why the home shard could not be asked; what was known stays.
    ///
    /// # Cancel safety
    /// Safe: what was known stays.
    pub async fn refresh_twin_oids(self: &Arc<Shared>, name: &str) -> Result<(), Fault> {
        let snapshot = self.snapshot.load_full();
        let list = snapshot.control.twins(name)?;
        if list.is_empty() {
            return Ok(());
        }
        let database = self.database(name);
        let _reading = database.reading_oids_of_twins.lock().await;
        let start = |index: usize| {
            let (control, name) = (Arc::clone(&snapshot.control), name.to_owned());
            self.control_runtime
                .spawn(async move { control.twin_types(&name, index).await })
        };
        let under_way: Vec<_> = (0..list.len()).map(start).collect();
        let (home, _) = snapshot.control.home_and_others(name)?;
        let at_home = snapshot.control.types(name, &home).await?;
        let mut found = Vec::with_capacity(list.len());
        for (twin, reading) in list.into_iter().zip(under_way) {
            found.push((twin.name, reading.await.ok().and_then(Result::ok)));
        }
        let oids = &database.oids_of_twins;
        let read = oids.load().read(snapshot.generation, Some(at_home), found);
        oids.store(Arc::new(read));
        Ok(())
    }
}

/// Whether a twin is there and not as its home shard.
fn is_behind(look: &Look, mark: &str) -> bool {
    match look {
        Ok(Some(made)) => made.mark != mark,
        Ok(None) => true,
        Err(_) => false,
    }
}

fn conditions(list: Vec<Twin>, looks: Vec<Look>, mark: &str) -> Vec<(Twin, Condition)> {
    let condition = |look: Look| match look {
        Ok(Some(made)) if made.mark == mark => Condition::Current {
            mark: made.mark,
            made: made.made,
        },
        Ok(Some(_) | None) => Condition::Behind,
        Err(fault) if fault.code == SqlState::UNKNOWN_DATABASE => Condition::Missing,
        Err(_) => Condition::Unknown,
    };
    let looks = looks.into_iter().map(condition);
    list.into_iter().zip(looks).collect()
}
