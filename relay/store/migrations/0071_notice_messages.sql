-- A notice as data: each kind of channel writes it in its own form. `text` stays for a relay of the version before.
ALTER TABLE relay.notices ADD COLUMN message jsonb;
