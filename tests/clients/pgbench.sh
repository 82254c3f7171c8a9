#!/usr/bin/env bash
# pgbench: all three protocols, pipelines, reconnecting; fails a habit unless no transaction failed.
set -u
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
pgbench=$(command -v pgbench || ls -d /usr/lib/postgresql/*/bin/pgbench | tail -1)

cat >"$folder/read" <<'SQL'
\set key random(1, 1000)
select v from kv where k = :key \gset
SQL
cat >"$folder/write" <<'SQL'
\set key random(20000, 29999)
begin;
insert into kv values (:key, 'bench') on conflict (k) do update set v = excluded.v;
select k from kv where k = :key;
delete from kv where k = :key;
end;
SQL
cat >"$folder/pipeline" <<'SQL'
\set key random(1, 1000)
\startpipeline
select v from kv where k = :key;
select k from kv where k = :key;
select v from kv where k = :key;
\endpipeline
SQL

habit() {
    local name=$1 out
    shift
    out=$("$pgbench" -n -c 8 -j 2 "$@" 2>&1)
    if grep -q 'failed transactions: 0 ' <<<"$out" && ! grep -qE 'error|aborted' <<<"$out"; then
        printf 'ok\t%s\n' "$name"
    else
        printf 'no\t%s\t%s\n' "$name" "$(grep -E 'error|ERROR|aborted|failed' <<<"$out" | head -2 | tr '\n\t' '  ')"
    fi
}

for protocol in simple extended prepared; do
    habit "read_$protocol" -M $protocol -f "$folder/read" -t 200
    habit "write_$protocol" -M $protocol -f "$folder/write" -t 100
done
habit pipeline_extended -M extended -f "$folder/pipeline" -t 100
habit pipeline_prepared -M prepared -f "$folder/pipeline" -t 100
habit reconnect -C -f "$folder/read" -t 20
