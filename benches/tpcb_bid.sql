\set bid random(1, 100)
\set aid (:bid - 1) * 1000 + random(1, 1000)
\set tid (:bid - 1) * 10 + random(1, 10)
\set delta random(-5000, 5000)
BEGIN;
UPDATE tpcb_accounts SET abalance = abalance + :delta WHERE aid = :aid AND bid = :bid;
SELECT abalance FROM tpcb_accounts WHERE aid = :aid AND bid = :bid;
UPDATE tpcb_tellers SET tbalance = tbalance + :delta WHERE tid = :tid AND bid = :bid;
UPDATE tpcb_branches SET bbalance = bbalance + :delta WHERE bid = :bid;
INSERT INTO tpcb_history (tid, bid, aid, delta, mtime) VALUES (:tid, :bid, :aid, :delta, CURRENT_TIMESTAMP);
END;
