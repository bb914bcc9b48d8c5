-- The longest gap between two webhooks in an hour: what is usual at this hour of the week is learned from the same hour
-- of the last weeks (silence-p1). A relay adds the hours that it asks for; one row is one hour.
CREATE TABLE relay.usual_gaps (
    hour          timestamptz PRIMARY KEY,
    longest_gap_s double precision NOT NULL
);
