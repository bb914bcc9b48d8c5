-- Plans that could never be sent as they stand: a rate that is no number, one body for many deliveries.

ALTER TABLE relay.replay_plans
    ADD CONSTRAINT replay_plans_rate_is_finite CHECK (rate < 'Infinity') NOT VALID,
    ADD CONSTRAINT replay_plans_edit_is_of_one CHECK (edited_body IS NULL OR total <= 1) NOT VALID;
