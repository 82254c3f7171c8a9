//! Scratch.
use crate::client::Client;
use crate::herd::{Herd, Options};
use crate::message;
use crate::shared::Databases;
#[test]
fn probe() {
    let databases = Databases::create(4);
    databases.run_everywhere("CREATE TABLE t (k int8, n int, v text, primary key (k, n)); CREATE TABLE s (k int8); INSERT INTO s values (1); CREATE TABLE r (k int8, n int, v text, primary key (k, n))");
    let mut options = Options::new("transaction");
    options.sharded("t", "k", "bigint", "{jump: all}").table("r", "reference");
    for shard in 1..4 { databases.shard(shard).run("delete from s"); }
    let herd = Herd::start(&databases, &options);
    let mut client = herd.connect();
    let show = |client: &mut Client| {
        for message in client.until_ready().unwrap() { println!("   {}", message.line()); }
    };
    let text = std::fs::read_to_string("/tmp/probe.txt").unwrap();
    for line in text.lines() {
        println!("{line}");
        if let Some(sql) = line.strip_prefix("x ") {
            client.send(&[message::parse("", sql, &[]), message::bind("", "", &[], &[], &[]), message::describe(b'P', ""), message::execute("", 0), message::sync()].concat());
        } else {
            client.send(&message::query(line.strip_prefix("q ").unwrap_or(line)));
        }
        show(&mut client);
    }
}
