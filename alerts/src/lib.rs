//! Alerts: PagerDuty, Slack, Teams, Alertmanager, webhook.
//!
//! Deliberately empty: alerting has an issue of its own. The crate stands here so that the map of the workspace is
//! complete and the arrows to it are tested. Until then whoever must be told is told through the agent's journal, its
//! log, its metrics and its server-sent events.
