//! SHOW POOLS: one row for each user, database and shard.

use crate::admin::answer::{Cell, int4, int8, text};
use crate::admin::show::{Show, View, pool_mode, wait};
use crate::metrics::view::Detail;

pub(super) const SHOW: Show = Show {
    name: "pools",
    about: "The pools: who uses and who awaits server connections.",
    columns: &[
        text("database"),
        text("user"),
        int4("cl_active"),
        int4("cl_waiting"),
        int4("cl_active_cancel_req"),
        int4("cl_waiting_cancel_req"),
        int4("sv_active"),
        int4("sv_active_cancel"),
        int4("sv_being_canceled"),
        int4("sv_idle"),
        int4("sv_used"),
        int4("sv_tested"),
        int4("sv_login"),
        int4("maxwait"),
        int4("maxwait_us"),
        text("pool_mode"),
        text("load_balance_hosts"),
        text("shard"),
        text("role"),
        int8("out_of_sync"),
    ],
    needs: Some(Detail::Pools),
    rows,
};

fn rows(view: &View<'_>) -> Vec<Vec<Cell>> {
    let row = view.snapshot.pools.iter().map(|pool| {
        let (seconds, micros) = wait(pool.max_wait);
        vec![
            Cell::from(&pool.database),
            Cell::from(&pool.user),
            Cell::from(pool.cl_active),
            Cell::from(pool.cl_waiting),
            Cell::from(pool.cl_active_cancel_req),
            Cell::from(pool.cl_waiting_cancel_req),
            Cell::from(pool.sv_active),
            Cell::from(pool.sv_active_cancel),
            Cell::from(pool.sv_being_canceled),
            Cell::from(pool.sv_idle),
            Cell::from(pool.sv_used),
            Cell::from(pool.sv_tested),
            Cell::from(pool.sv_login),
            seconds,
            micros,
            Cell::from(pool_mode(pool.pool_mode)),
            Cell::Null,
            Cell::from(&pool.shard),
            Cell::from(pool.role.as_str()),
            Cell::from(pool.out_of_sync),
        ]
    });
    row.collect()
}
