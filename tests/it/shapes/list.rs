//! The shapes, from one shard's rows to writes of several: the number of each is that of the corpus they
//! are taken from.
//!
//! Where a shape read the clock it has a moment of its own. Shape 60 are TPC-H's queries, which
//! `benches/tpch.py` runs.

/// One statement, or the statements of one shape in turn.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) name: &'static str,
    pub(super) sql: &'static str,
    /// Whether ORDER BY says where each row stands.
    pub(super) ordered: bool,
    /// Values for it, each tried in turn as text and in binary.
    pub(super) values: &'static [Value],
}

/// A value of the only parameter.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    Int2(i16),
    Int4(i32),
    Int8(i64),
    /// Of type text.
    Text(&'static str),
    /// Of a type that the server finds.
    Untyped(&'static str),
    /// NULL of a type.
    Null(u32),
    Ints(&'static [i32]),
}

const fn any(name: &'static str, sql: &'static str) -> Shape {
    Shape {
        name,
        sql,
        ordered: false,
        values: &[],
    }
}

const fn ordered(name: &'static str, sql: &'static str) -> Shape {
    Shape {
        name,
        sql,
        ordered: true,
        values: &[],
    }
}

const fn with(name: &'static str, sql: &'static str, values: &'static [Value]) -> Shape {
    Shape {
        name,
        sql,
        ordered: false,
        values,
    }
}

const KEYS: &[Value] = &[
    Value::Int2(42),
    Value::Int4(42),
    Value::Int8(42),
    Value::Int4(-3),
    Value::Int8(1 << 40),
    Value::Text("42"),
    Value::Untyped("42"),
    Value::Null(23),
    Value::Null(0),
];

/// Those that only read.
pub(super) const READS: &[Shape] = &[
    // One shard.
    any("01 one row", "SELECT * FROM customers WHERE c_id=42"),
    with(
        "02 one row by a parameter",
        "SELECT * FROM customers WHERE c_id=$1",
        KEYS,
    ),
    ordered(
        "03 groups of one key",
        "SELECT status,count(*),sum(total) FROM orders WHERE c_id=42 GROUP BY 1 HAVING sum(total)>9 ORDER BY 3 DESC LIMIT 5",
    ),
    any(
        "04 joins of one key",
        "SELECT * FROM customers JOIN orders USING(c_id) JOIN items USING(c_id,o_id) WHERE c_id=42",
    ),
    any(
        "05 window of one key",
        "SELECT *,rank() OVER (ORDER BY total) FROM orders WHERE c_id=42",
    ),
    any(
        "06 locked rows",
        "SELECT * FROM orders WHERE c_id=42 FOR UPDATE SKIP LOCKED",
    ),
    any(
        "08 key from a constant subquery",
        "SELECT * FROM orders WHERE c_id=(SELECT 42)",
    ),
    // Several shards, nothing to merge.
    any(
        "09 list of keys",
        "SELECT * FROM orders WHERE c_id IN (1,2,3)",
    ),
    with(
        "09 array of keys",
        "SELECT * FROM orders WHERE c_id=ANY($1::int[])",
        &[
            Value::Ints(&[1, 2, 3]),
            Value::Untyped("{42,NULL,7}"),
            Value::Untyped("{}"),
            Value::Null(1007),
        ],
    ),
    any(
        "10 either key",
        "SELECT * FROM orders WHERE c_id=1 OR (c_id=99 AND status='x')",
    ),
    any(
        "11 range of keys",
        "SELECT * FROM orders WHERE c_id BETWEEN 1 AND 10",
    ),
    any("12 no key", "SELECT c_id FROM customers WHERE region='EU'"),
    any(
        "13 contradiction",
        "SELECT * FROM orders WHERE c_id=1 AND c_id=2",
    ),
    // Order, limits, DISTINCT.
    ordered(
        "14 first rows",
        "SELECT o_id,total FROM orders ORDER BY total DESC,o_id LIMIT 10",
    ),
    ordered(
        "15 beyond the rows",
        "SELECT o_id,total FROM orders ORDER BY total DESC,o_id LIMIT 10 OFFSET 1000",
    ),
    ordered(
        "15 later rows",
        "SELECT o_id,total FROM orders ORDER BY total DESC,o_id LIMIT 10 OFFSET 100",
    ),
    ordered(
        "16 order by what is not selected",
        "SELECT o_id FROM orders ORDER BY total*2 NULLS FIRST,o_id LIMIT 5",
    ),
    ordered(
        "17 order of names",
        "SELECT name FROM customers ORDER BY name",
    ),
    ordered(
        "17 order of names in a language",
        "SELECT name FROM customers ORDER BY name COLLATE \"en-x-icu\"",
    ),
    ordered(
        "18 distinct",
        "SELECT DISTINCT region FROM customers ORDER BY 1",
    ),
    ordered(
        "19 distinct on",
        "SELECT DISTINCT ON (c_id) c_id,total FROM orders ORDER BY c_id,placed DESC",
    ),
    any(
        "20 with ties",
        "SELECT o_id FROM orders ORDER BY total FETCH FIRST 3 ROWS WITH TIES",
    ),
    // Aggregates.
    any("21 count", "SELECT count(*) FROM orders"),
    any(
        "21 count of nothing",
        "SELECT count(*),sum(total),max(placed) FROM archive",
    ),
    any(
        "22 groups",
        "SELECT region,count(*),sum(balance),min(name),max(name),avg(balance) FROM customers GROUP BY 1",
    ),
    any(
        "23 averages",
        "SELECT avg(qty),avg(price),avg(total::float8),avg(timestamptz '2026-01-01 00:00:00+00'-placed) FROM items JOIN orders USING(c_id,o_id)",
    ),
    ordered(
        "24 months",
        "SELECT date_trunc('month',placed) m,sum(total) FROM orders GROUP BY m ORDER BY m",
    ),
    any(
        "25 aggregate in HAVING alone",
        "SELECT status FROM orders GROUP BY status HAVING avg(total)>100",
    ),
    any(
        "26 counts of distinct values",
        "SELECT count(DISTINCT c_id),count(DISTINCT p_id) FROM items",
    ),
    any(
        "27 sum of distinct values",
        "SELECT sum(DISTINCT qty),count(*) FROM items",
    ),
    any(
        "28 filtered",
        "SELECT sum(total) FILTER (WHERE status='x'), bool_or(total>9) FROM orders",
    ),
    any(
        "29 statistics",
        "SELECT stddev(total),var_pop(qty::float8),corr(qty::float8,price::float8) FROM items JOIN orders USING(c_id,o_id)",
    ),
    any(
        "30 joined names",
        "SELECT string_agg(name,',' ORDER BY name) FROM customers GROUP BY region",
    ),
    any(
        "31 ordered and distinct arrays",
        "SELECT array_agg(o_id ORDER BY placed DESC), jsonb_agg(DISTINCT status) FROM orders",
    ),
    any(
        "32 percentile and mode",
        "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY total), mode() WITHIN GROUP (ORDER BY status) FROM orders",
    ),
    any(
        "33 rollup",
        "SELECT region,tier,sum(balance),grouping(region) FROM customers GROUP BY ROLLUP(region,tier)",
    ),
    ordered(
        "34 groups of the key",
        "SELECT c_id,sum(total) FROM orders GROUP BY c_id ORDER BY 2 DESC LIMIT 3",
    ),
    any(
        "35 aggregate of aggregates",
        "SELECT sum(s)/count(*) FROM (SELECT c_id,sum(total) s FROM orders GROUP BY c_id) q",
    ),
    // Joins.
    any(
        "36 three tables of one key",
        "SELECT c.region,sum(i.qty*i.price) FROM customers c JOIN orders o USING(c_id) JOIN items i USING(c_id,o_id) GROUP BY 1",
    ),
    any(
        "37 with a reference table",
        "SELECT p.name,k.name FROM products p JOIN cats k USING(cat_id)",
    ),
    any(
        "38 left of one key",
        "SELECT c.c_id,count(o_id) FROM customers c LEFT JOIN orders o USING(c_id) GROUP BY 1",
    ),
    any(
        "39 left of a reference table",
        "SELECT k.name,count(p_id) FROM cats k LEFT JOIN products p USING(cat_id) GROUP BY 1",
    ),
    any(
        "40 two keys",
        "SELECT i.o_id,p.name FROM items i JOIN products p USING(p_id)",
    ),
    any(
        "41 groups of two keys",
        "SELECT c.region,p.cat_id,sum(qty) FROM customers c JOIN items i USING(c_id) JOIN products p USING(p_id) GROUP BY 1,2",
    ),
    any(
        "42 left of two keys",
        "SELECT * FROM items i LEFT JOIN reviews r ON r.p_id=i.p_id AND r.c_id=i.c_id",
    ),
    any(
        "43 full",
        "SELECT * FROM customers c FULL JOIN orders o USING(c_id)",
    ),
    any(
        "44 a table with itself",
        "SELECT a.c_id,b.c_id FROM customers a JOIN customers b ON a.region=b.region AND a.c_id<b.c_id",
    ),
    any(
        "45 cross",
        "SELECT count(*) FROM customers CROSS JOIN products",
    ),
    any(
        "46 with a single table",
        "SELECT * FROM orders o JOIN settings s ON s.k=o.status",
    ),
    any(
        "47 lateral of one key",
        "SELECT c.c_id,t.* FROM customers c, LATERAL (SELECT * FROM orders o WHERE o.c_id=c.c_id ORDER BY total DESC LIMIT 2) t",
    ),
    any(
        "48 lateral of two keys",
        "SELECT p.p_id,t.* FROM products p, LATERAL (SELECT * FROM items i WHERE i.p_id=p.p_id ORDER BY price LIMIT 1) t",
    ),
    // Subqueries, WITH, set operations, windows.
    any(
        "49 in",
        "SELECT * FROM customers WHERE c_id IN (SELECT c_id FROM orders WHERE total>900)",
    ),
    any(
        "50 not in, with NULL",
        "SELECT * FROM products WHERE p_id NOT IN (SELECT p_id FROM items)",
    ),
    any(
        "50 not in",
        "SELECT * FROM products WHERE p_id NOT IN (SELECT p_id FROM items WHERE p_id IS NOT NULL AND qty>4)",
    ),
    any(
        "51 above the average",
        "SELECT * FROM orders WHERE total>(SELECT avg(total) FROM orders)",
    ),
    any(
        "52 count beside a key",
        "SELECT c_id,(SELECT count(*) FROM orders) n FROM customers WHERE c_id=7",
    ),
    any(
        "53 exists",
        "SELECT * FROM customers c WHERE EXISTS (SELECT 1 FROM orders o WHERE o.c_id=c.c_id AND total>9)",
    ),
    any(
        "54 correlated beyond the key",
        "SELECT * FROM products p WHERE price>(SELECT avg(price) FROM items i WHERE i.p_id=p.p_id)",
    ),
    any(
        "55 with, twice",
        "WITH x AS (SELECT * FROM orders ORDER BY total DESC LIMIT 50) SELECT c_id,count(*) FROM x a JOIN x b USING(c_id) GROUP BY 1",
    ),
    any(
        "56 recursive",
        "WITH RECURSIVE t AS (SELECT cat_id FROM cats WHERE parent IS NULL UNION ALL SELECT k.cat_id FROM cats k JOIN t ON k.parent=t.cat_id) SELECT count(*) FROM products JOIN t USING(cat_id)",
    ),
    ordered(
        "57 union",
        "SELECT c_id FROM orders UNION SELECT c_id FROM reviews ORDER BY 1 LIMIT 9",
    ),
    ordered(
        "57 intersect",
        "SELECT c_id FROM orders INTERSECT SELECT c_id FROM reviews ORDER BY 1 LIMIT 9",
    ),
    ordered(
        "57 except",
        "SELECT c_id FROM orders EXCEPT SELECT c_id FROM reviews ORDER BY 1 LIMIT 9",
    ),
    ordered(
        "57 union all",
        "SELECT c_id FROM orders UNION ALL SELECT c_id FROM reviews ORDER BY 1 LIMIT 9",
    ),
    any(
        "58 window of the key",
        "SELECT c_id,total,row_number() OVER (PARTITION BY c_id ORDER BY placed) FROM orders",
    ),
    any(
        "59 windows of all rows",
        "SELECT o_id,ntile(4) OVER (ORDER BY total,o_id),lag(total) OVER w FROM orders WINDOW w AS (PARTITION BY status ORDER BY placed,o_id)",
    ),
    // What a proxy may take for simpler than it is.
    any("floats", "SELECT r_id,stars,stars+1,-stars FROM reviews"),
    any(
        "float sums",
        "SELECT p_id,sum(stars),avg(stars),min(stars),max(stars) FROM reviews GROUP BY p_id",
    ),
    ordered(
        "order of floats",
        "SELECT r_id,stars FROM reviews ORDER BY stars,r_id",
    ),
    any(
        "float groups",
        "SELECT stars,count(*) FROM reviews WHERE stars<>0 GROUP BY 1",
    ),
    any(
        "error in a row",
        "SELECT 1/(qty-qty) FROM items i JOIN products p USING(p_id)",
    ),
    any(
        "error in the text",
        "SELECT nothing FROM items i JOIN products p USING(p_id)",
    ),
    with(
        "parameters beyond the key",
        "SELECT p.p_id,sum(i.qty) FROM items i JOIN products p USING(p_id) WHERE i.qty>$1 GROUP BY 1",
        &[
            Value::Int2(3),
            Value::Int4(3),
            Value::Int8(3),
            Value::Untyped("3"),
            Value::Text("3"),
            Value::Null(23),
        ],
    ),
    with(
        "text parameter",
        "SELECT o.o_id,s.v,$1::text AS given FROM orders o LEFT JOIN settings s ON s.k=o.status WHERE o.status=$1 OR $1 IS NULL",
        &[
            Value::Text("ünpaid"),
            Value::Untyped("it's"),
            Value::Null(25),
        ],
    ),
    // COPY.
    ordered(
        "66 copy out",
        "COPY (SELECT c_id,name,balance FROM customers ORDER BY c_id) TO STDOUT",
    ),
    ordered(
        "66 copy out, csv",
        "COPY (SELECT p.name,sum(i.qty) FROM items i JOIN products p USING(p_id) GROUP BY p.p_id ORDER BY p.p_id) TO STDOUT (FORMAT csv, HEADER)",
    ),
    ordered(
        "66 copy out, binary",
        "COPY (SELECT p.p_id,sum(i.price) FROM items i JOIN products p USING(p_id) GROUP BY p.p_id ORDER BY p.p_id) TO STDOUT (FORMAT binary)",
    ),
    any("66 copy of a table", "COPY orders TO STDOUT"),
];

/// Those that write, in their order.
pub(super) const WRITES: &[Shape] = &[
    any(
        "07 update from a WITH of one key",
        "WITH m AS (SELECT max(o_id) x FROM orders WHERE c_id=42) UPDATE orders SET status='x' FROM m WHERE c_id=42 AND o_id=x RETURNING *",
    ),
    any(
        "61 rows of several shards",
        "INSERT INTO orders VALUES (9001,1,'new',1,'2026-01-01'),(9002,42,'new',2.50,'2026-01-02'),(9003,60,NULL,NULL,NULL),(9004,50,'ü',-1,'2026-01-04') RETURNING o_id",
    ),
    any(
        "61 upsert",
        "INSERT INTO orders (o_id,c_id,total) VALUES (9001,1,7),(9002,42,8),(9009,2,9) ON CONFLICT (c_id,o_id) DO UPDATE SET total=excluded.total",
    ),
    any("after 61", "SELECT * FROM orders"),
    any(
        "62 one key's rows",
        "INSERT INTO archive SELECT * FROM orders WHERE c_id=42",
    ),
    any("after 62", "SELECT * FROM archive"),
    any(
        "62 every key's rows",
        "INSERT INTO archive SELECT * FROM orders",
    ),
    any(
        "62 the first rows",
        "INSERT INTO archive SELECT * FROM orders ORDER BY o_id LIMIT 10",
    ),
    any(
        "63 a row moves",
        "UPDATE orders SET c_id=c_id+1 WHERE o_id=5 RETURNING *",
    ),
];

/// Those that write and are refused: each is to be moved above once it is served.
pub(super) const REFUSED: &[Shape] = &[any(
    "65 delete and insert",
    "WITH d AS (DELETE FROM orders WHERE total<1 RETURNING *) INSERT INTO archive SELECT * FROM d",
)];
