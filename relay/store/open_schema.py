"""Whether a login that may only read could run code with the rights of others: by functions in a schema of the path.

Postgres chooses the function whose arguments fit best among all schemas of the search path. One that any login may put
beside `dashboard_facts` can therefore take the place of a built-in one in a statement of the relay, of its owner or of
a console (PostgreSQL documentation, "Schemas", 5.10.6).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.store.database import Connection

_OPEN = """
    SELECT quote_ident(n.nspname)
      FROM pg_namespace n CROSS JOIN LATERAL aclexplode(n.nspacl) AS granted
     WHERE n.nspname = ANY (current_schemas(false)) AND granted.grantee = 0 AND granted.privilege_type = 'CREATE'
     ORDER BY 1
"""


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
