"""Whether a login that may only read could run code with the rights of others: by functions in a schema of the path.

Postgres chooses the function whose arguments fit best among all schemas of the search path. One that any login may put
beside `dashboard_facts` can therefore take the place of a built-in one in a statement of the relay, of its owner or of
a console (PostgreSQL documentation, "Schemas", 5.10.6).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from relay.errors import SchemaError
from relay.store.database import rows_of

if TYPE_CHECKING:
    from relay.store.database import Connection

_OPEN = """
    SELECT quote_ident(n.nspname)
      FROM pg_namespace n CROSS JOIN LATERAL aclexplode(n.nspacl) AS granted
     WHERE n.nspname = ANY (current_schemas(false)) AND granted.grantee = 0 AND granted.privilege_type = 'CREATE'
     ORDER BY 1
"""


# `anon` and `authenticated` are Supabase's, where what is made in public is open to both by default, over HTTP too.
_OPEN_FACTS = """
    SELECT DISTINCT CASE WHEN granted.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(r.rolname) END
      FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) AS granted
      LEFT JOIN pg_roles r ON r.oid = granted.grantee
     WHERE c.oid = to_regclass('dashboard_facts') AND NOT c.relrowsecurity
       AND (granted.grantee = 0 OR r.rolname IN ('anon', 'authenticated'))
     ORDER BY 1
"""


async def open_facts(connection: Connection) -> str | None:
    """A sentence with its remedy if logins that were not chosen may read or change `dashboard_facts`; else None."""
    names = ", ".join(row[0] for row in await (await connection.execute(_OPEN_FACTS)).fetchall())
    if not names:
        return None
    return (
        f"dashboard_facts is open to {names}, by default privileges or a GRANT; dead letters there hold what customers "
        f"wrote. Remedy: REVOKE ALL ON dashboard_facts FROM {names}, and grant it to the logins that need it"
    )


# Every comparison is of two values of one type, and every name is qualified: this statement must be safe itself.
# Schemas and makers come first: a built-in name is looked up only for what they leave, which is mostly nothing.
_PLANTED = """
    WITH built_in AS (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = 'pg_catalog'::name),
    schemas AS MATERIALIZED (
        SELECT oid FROM pg_catalog.pg_namespace
         WHERE nspname = ANY (pg_catalog.current_schemas(false)) AND nspname <> 'pg_catalog'::name
    ), makers AS MATERIALIZED (
        SELECT oid, rolname::text AS maker FROM pg_catalog.pg_roles
         WHERE NOT rolsuper AND rolname <> current_user
           AND oid NOT IN (SELECT nspowner FROM pg_catalog.pg_namespace WHERE nspname = 'relay'::name
                            UNION SELECT datdba FROM pg_catalog.pg_database
                                   WHERE datname = pg_catalog.current_database())
    ), functions AS MATERIALIZED (
        SELECT p.oid, p.proname, m.maker FROM pg_catalog.pg_proc p
          JOIN schemas s ON s.oid = p.pronamespace JOIN makers m ON m.oid = p.proowner
    ), operators AS MATERIALIZED (
        SELECT o.oid, o.oprname, m.maker FROM pg_catalog.pg_operator o
          JOIN schemas s ON s.oid = o.oprnamespace JOIN makers m ON m.oid = o.oprowner
    )
    SELECT 'function ' || f.oid::pg_catalog.regprocedure::text AS what, f.maker FROM functions f
     WHERE EXISTS (SELECT FROM pg_catalog.pg_proc b JOIN built_in i ON b.pronamespace = i.oid
                    WHERE b.proname = f.proname)
     UNION ALL
    SELECT 'operator ' || o.oid::pg_catalog.regoperator::text, o.maker FROM operators o
     WHERE EXISTS (SELECT FROM pg_catalog.pg_operator b JOIN built_in i ON b.oprnamespace = i.oid
                    WHERE b.oprname = o.oprname)
     ORDER BY 1 LIMIT 1
"""


async def refuse_planted(connection: Connection) -> None:
    """Ensure that no other login has made a function or operator that the owner's statements could run by its name.

    Raises:
        SchemaError: one has, in a schema of the search path, under the name of a built-in one.
    """
    row = await (await rows_of(connection, dict[str, Any]).execute(_PLANTED)).fetchone()
    if row is not None:
        what, maker = row["what"], row["maker"]
        raise SchemaError(
            f"the login {maker} made the {what}, which may run in place of a built-in one, with the rights of this "
            f"login. Nothing was done. Remedy: drop it, or give it to the owner (ALTER {what} OWNER TO …)"
        )


async def open_schema(connection: Connection) -> str | None:
    """A sentence with its remedy if any login may create functions in the statements' search path; else None.

    So is `public` before PostgreSQL 15, and in databases that come from there.
    """
    schemas = [row[0] for row in await (await connection.execute(_OPEN)).fetchall()]
    if not schemas:
        return None
    names = ", ".join(schemas)
    return (
        f"any login may create functions in the schema {names}, and so have the relay's and its owner's statements run "
        f"them. Remedy: REVOKE CREATE ON SCHEMA {names} FROM PUBLIC, and grant it to the logins that need it"
    )
