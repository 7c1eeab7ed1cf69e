"""The shell and SQL texts of a restore: constants, whose data arrives beside them."""

# Names reach SQL as psql variables, which quote themselves; the server's own as \$POSTGRES_DB.
# As PGDATABASE, since -d takes a name with = or :// for an address.
SQL = """
docker exec --interactive "$1" sh -c '
  maintenance=postgres
  [ "$POSTGRES_DB" != postgres ] || maintenance=template1
  case "$1" in live) in=$POSTGRES_DB ;; maintenance) in=$maintenance ;; *) in=$1 ;; esac
  export PGDATABASE="$in"
  exec psql -X -w -qtA -v ON_ERROR_STOP=1 -v db="$POSTGRES_DB" -v new="$2" -v old="$3" \
    -U "$POSTGRES_USER"
' psql "$2" "$3" "$4"
"""
# The kB that are free where the database lies, and the bytes that it takes now; nothing when
# that is on another machine.
ROOM = """
docker exec "$1" sh -c '
  [ -z "$PGHOST" ] || exit 0
  df -Pk "${PGDATA:-/var/lib/postgresql/data}" | awk "NR == 2 {print \\$4}"
  export PGDATABASE="$POSTGRES_DB"
  exec psql -X -w -qtA -U "$POSTGRES_USER" \\
    -c "select pg_database_size(current_database())"
'
"""
# As JSON, since which columns there are differs from version to version.
CREATE = r"""
select format(
  'create database %I template template0 owner %I encoding %L lc_collate %L lc_ctype %L',
  :'new', pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datcollate, datctype
) || case known->>'datlocprovider'
  when 'c' then ' locale_provider libc'
  when 'i' then ' locale_provider icu icu_locale '
    || quote_literal(coalesce(known->>'datlocale', known->>'daticulocale'))
  when 'b' then ' locale_provider builtin builtin_locale ' || quote_literal(known->>'datlocale')
  else ''
end || coalesce(' icu_rules ' || quote_literal(known->>'daticurules'), '')
from pg_database d, to_jsonb(d) known where datname = :'db' \gexec
"""
# What belongs to a database and is in no dump of it: its limit, comment, rights and settings.
# As much of it as the user may give: on a server of somebody else that need not be all.
LIKE_LIVE = r"""
\set ON_ERROR_STOP off
select format('alter database %I connection limit %s', :'new', datconnlimit),
  format('comment on database %I is %L', :'new', shobj_description(oid, 'pg_database'))
  from pg_database where datname = :'db' \gexec
select format('revoke all on database %I from public, %I', :'new', pg_get_userbyid(datdba))
  from pg_database where datname = :'db' and datacl is not null \gexec
select format('grant %s on database %I to %s%s', privilege_type, :'new',
  case grantee when 0 then 'public' else quote_ident(pg_get_userbyid(grantee)) end,
  case when is_grantable then ' with grant option' else '' end
) from pg_database, aclexplode(datacl) with ordinality where datname = :'db'
  order by ordinality \gexec
select format('alter %s %I set %I to %s',
  case setrole when 0 then 'database'
    else format('role %I in database', pg_get_userbyid(setrole)) end,
  :'new', name, case when value <> '' and name in (
    'search_path', 'temp_tablespaces', 'local_preload_libraries', 'session_preload_libraries'
  ) then value else quote_literal(value) end  -- a list is kept as it is written
) from pg_db_role_setting join pg_database d on d.oid = setdatabase, unnest(setconfig) entry,
  split_part(entry, '=', 1) name, substr(entry, strpos(entry, '=') + 1) value
  where datname = :'db' \gexec
"""
COUNT = """
set search_path = '';
select coalesce(json_object_agg(name, count), '{}') from (
  select c.oid::pg_catalog.regclass::text as name,
    (pg_catalog.xpath('/row/n/text()', pg_catalog.query_to_xml(
      pg_catalog.format('select count(*) as n from %s', c.oid::pg_catalog.regclass),
      false, true, '')))[1]::text::bigint as count
  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  where c.relkind = 'r' and n.nspname not like 'pg\\_%' and n.nspname <> 'information_schema'
) counted;
"""
SEQUENCES = """
set search_path = '';
select coalesce(json_object_agg(c.oid::pg_catalog.regclass::text,
  pg_catalog.pg_sequence_last_value(c.oid)), '{}')
from pg_catalog.pg_class c where c.relkind = 'S' and c.relpersistence <> 't';
"""
EXISTS = "select 1 from pg_database where datname = :'old';"
RENAME = 'alter database :"new" rename to :"old";'
CLOSE = 'alter database :"db" with allow_connections false;'
OPEN_OLD = 'alter database :"old" with allow_connections true;'
OPEN = 'alter database :"db" with allow_connections true;'
SWAP = """
begin;
select count(pg_terminate_backend(pid)) from pg_stat_activity
  where datname = :'db' and pid <> pg_backend_pid();
alter database :"db" rename to :"old";
alter database :"new" rename to :"db";
commit;
"""
SWAP_BACK = """
alter database :"db" with allow_connections false;
begin;
select count(pg_terminate_backend(pid)) from pg_stat_activity
  where datname = :'db' and pid <> pg_backend_pid();
alter database :"db" rename to :"new";
alter database :"old" rename to :"db";
commit;
alter database :"db" with allow_connections true;
drop database :"new" with (force);
"""
DROP_NEW = 'drop database if exists :"new" with (force);'
# These two are given patterns for names.
LEFT = """
select datname from pg_database where datname ~ ('^(' || :'new' || '|' || :'old' || ')$')
union select datname || ' (closed)' from pg_database where datname = :'db' and not datallowconn;
"""
# After a restore that was killed: the live name exists and lets everybody in again.
REOPEN = r"""
select format('alter database %I rename to %I', (
  select datname from pg_database where datname ~ ('^' || :'old' || '$') order by 1 desc limit 1
), :'db') where not exists (select from pg_database where datname = :'db')
  and exists (select from pg_database where datname ~ ('^' || :'old' || '$')) \gexec
select format('alter database %I with allow_connections true', :'db')
  where exists (select from pg_database where datname = :'db' and not datallowconn) \gexec
"""
DROP_LEFT = r"""
select format('drop database %I with (force)', datname) from pg_database
  where datname ~ ('^(' || :'new' || '|' || :'old' || ')$') \gexec
"""
DROP_OLD = 'drop database if exists :"old" with (force);'
