"""Whether a login that may only read could run code with the rights of others: by functions in a schema of the path.

Postgres chooses the function whose arguments fit best among all schemas of the search path. One that any login may put
beside `dashboard_facts` can therefore take the place of a built-in one in a statement of the relay, of its owner or of
a console (PostgreSQL documentation, "Schemas", 5.10.6).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.errors import SchemaError

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
_PLANTED = """
    WITH built_in AS (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = 'pg_catalog'::name),
    made AS (
        SELECT 'function ' || p.oid::pg_catalog.regprocedure::text AS what, p.proowner AS owner,
               p.pronamespace AS schema
          FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_proc b ON b.proname = p.proname
          JOIN built_in i ON b.pronamespace = i.oid
         UNION
        SELECT 'operator ' || o.oid::pg_catalog.regoperator::text, o.oprowner, o.oprnamespace
          FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_operator b ON b.oprname = o.oprname
          JOIN built_in i ON b.oprnamespace = i.oid
    )
    SELECT m.what, r.rolname::text
      FROM made m JOIN pg_catalog.pg_namespace n ON n.oid = m.schema JOIN pg_catalog.pg_roles r ON r.oid = m.owner
     WHERE n.nspname = ANY (pg_catalog.current_schemas(false)) AND n.nspname <> 'pg_catalog'::name AND NOT r.rolsuper
       AND r.rolname <> current_user
       AND m.owner NOT IN (SELECT nspowner FROM pg_catalog.pg_namespace WHERE nspname = 'relay'::name
                            UNION SELECT datdba FROM pg_catalog.pg_database
                                   WHERE datname = pg_catalog.current_database())
     ORDER BY 1 LIMIT 1
"""


async def refuse_planted(connection: Connection) -> None:
    """Ensure that no other login has made a function or operator that the owner's statements could run by its name.

    Raises:
        SchemaError: one has, in a schema of the search path, under the name of a built-in one.
    """
    row = await (await connection.execute(_PLANTED)).fetchone()
    if row is not None:
        raise SchemaError(
            f"the login {row[1]} made the {row[0]}, which may run in place of a built-in one, with the rights of this "
            f"login. Nothing was done. Remedy: drop it, or give it to the owner (ALTER {row[0]} OWNER TO …)"
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
