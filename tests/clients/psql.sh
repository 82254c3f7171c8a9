#!/usr/bin/env bash
# psql: everything by simple queries; meta-commands that read the catalogs; \copy; SQL's own PREPARE.
# `habit NAME EXPECTED` runs the script on its standard input and compares what psql prints.
set -u

habit() {
    local name=$1 expected=$2 got
    got=$(psql -XqAt -F , -v ON_ERROR_STOP=0 2>&1)
    if [ "$got" = "$expected" ]; then
        printf 'ok\t%s\n' "$name"
    else
        printf 'no\t%s\tgot %s\n' "$name" "$(tr -s '\n\t ' ' ' <<<"$got" | cut -c1-300)"
    fi
}

habit rows_by_key $'v1\nv2\nv777' <<'SQL'
select v from kv where k = 1;
select v from kv where k = 2;
select v from kv where k = 777;
SQL
habit block $'new\n0' <<'SQL'
begin;
insert into kv values (9001, 'new');
select v from kv where k = 9001;
rollback;
select count(*) from kv where k = 9001;
SQL
habit prepare_execute_deallocate $'one\ntwo' <<'SQL'
prepare words (integer) as select case $1 when 1 then 'one' else 'two' end where not exists (select from notes where id < 0);
execute words (1);
execute words (2);
deallocate words;
SQL
habit failed_block $'ERROR:  division by zero\nERROR:  current transaction is aborted, commands ignored until end of transaction block\nv3' <<'SQL'
begin;
select 1 / (k - 1) from kv where k = 1;
select v from kv where k = 1;
rollback;
select v from kv where k = 3;
SQL
habit savepoints $'v1\nv1' <<'SQL'
begin;
select v from kv where k = 1;
savepoint one;
update kv set v = 'x' where k = 1;
rollback to one;
release one;
commit;
select v from kv where k = 1;
SQL
habit settings_last $'17MB\nv9\n17MB\nv10\n17MB' <<'SQL'
set work_mem = '17MB';
show work_mem;
select v from kv where k = 9;
show work_mem;
select v from kv where k = 10;
show work_mem;
SQL
habit describe_table $'k,bigint,,not null,\nv,text,,,' <<'SQL'
\d kv
SQL
habit list_tables $'public,kv,table,bench\npublic,labels,table,bench\npublic,notes,table,bench' <<'SQL'
\dt
SQL
habit copy_in_and_rows $'copied\n1' <<'SQL'
\copy kv from program 'seq -f "%.0f	copied" 9100 9199' 
select v from kv where k = 9150;
select count(*) from kv where k = 9199;
SQL
habit copy_csv '1' <<'SQL'
copy notes from stdin with (format csv, header);
id,body
900,"a ""quoted"", line
and another"
\.
delete from notes where id = 900 and body like '%another' returning 1;
SQL
# The notification names a process of the server: only its start is compared.
heard=$(psql -XqAt <<'SQL' 2>&1 | sed 's/ received from.*//'
listen psql_habit;
notify psql_habit, 'hi';
select pg_sleep(1);
SQL
)
case $heard in
    *'"psql_habit" with payload "hi"'*) printf 'ok\tlisten_notify\n' ;;
    *) printf 'no\tlisten_notify\tgot %s\n' "$(tr '\n' ' ' <<<"$heard")" ;;
esac
habit temporary_table '42' <<'SQL'
create temporary table mine as select 42 as x;
select x from mine;
SQL
habit variables_and_gset 'v31' <<'SQL'
select k from kv where k = 31 \gset
select v from kv where k = :k;
SQL
habit multi_line_string $'1\nv4' <<'SQL'
select 1 \; select v from kv where k = 4;
SQL
habit reference_table $'a\nb' <<'SQL'
select name from labels order by name;
SQL
habit write_to_every_shard $'2\n2' <<'SQL'
insert into labels values ('c');
update labels set name = 'd' where name = 'c';
delete from labels where name = 'd';
select count(*) from labels;
select count(*) from labels;
SQL
habit ddl_and_back $'t\nv' <<'SQL'
create table made (k bigint primary key);
select to_regclass('made') is not null;
drop table made;
select v from (values ('v')) as x (v);
SQL
for key in $(seq 9100 9199); do echo "delete from kv where k = $key;"; done | psql -Xq >/dev/null
