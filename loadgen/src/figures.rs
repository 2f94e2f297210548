//! Figures that the user gives a scenario: whether they mean something there, and can be run with.

use crate::args::Refusal;
use crate::audit::Audience;
use crate::scenario::{Kind, Scenario};
use crate::stamp::STAMP_LEN;

/// Deliveries of a flood that are under way: more is memory for the broker, and no faster.
const UNDER_WAY_MAX: usize = 10_000_000;

/// Changes one figure of a scenario, if that has a meaning there.
pub(crate) fn set(scenario: &mut Scenario, figure: &str, value: f64) -> Result<(), Refusal> {
    if !scenario.kind.uses().contains(&figure) {
        let used = scenario.kind.uses().join(", --");
        return Err(format!("{} has no --{figure}; it has --{used}", scenario.name));
    }
    if !value.is_finite() || value < 0.0 {
        return Err(format!("--{figure} {value} is out of range"));
    }
    let params = &mut scenario.params;
    let whole = value as usize;
    match figure {
        "rate" => params.rate = value,
        "seconds" => params.seconds = value,
        _ if value.fract() != 0.0 => return Err(format!("--{figure} takes whole numbers")),
        "publishers" => params.publishers = whole,
        "subscribers" => params.subscribers = whole,
        "connections" => params.connections = whole,
        "payload" => params.payload = whole,
        "qos" => params.qos = value.min(255.0) as u8,
        "messages" => params.messages = whole,
        _ => params.window = whole,
    }
    Ok(())
}

/// Refuses figures nothing could be run with.
pub(crate) fn sensible(scenario: &Scenario) -> Result<(), Refusal> {
    let (params, kind, name) = (&scenario.params, scenario.kind, scenario.name);
    let uses = |figure| kind.uses().contains(&figure);
    let refuse = |what: &str| Err(format!("{name}: {what}"));
    if params.qos > 2 {
        return refuse("QoS is 0, 1 or 2");
    }
    if uses("payload") && !(STAMP_LEN..=16 << 20).contains(&params.payload) {
        return refuse("a payload has 16 bytes, for the stamp in it, to 16 MiB");
    }
    for (figure, count) in [
        ("publishers", params.publishers),
        ("subscribers", params.subscribers),
        ("connections", params.connections),
    ] {
        if uses(figure) && count == 0 && kind != Kind::Churn {
            return refuse(&format!("--{figure} has to be more than 0"));
        }
    }
    if uses("messages") && !(1..=10_000_000).contains(&params.messages) {
        return refuse("--messages is between 1 and 10,000,000");
    }
    if uses("window") && !(1..=65_535).contains(&params.window) {
        return refuse("--window is between 1 and 65,535");
    }
    if uses("seconds") && !(params.seconds > 0.0 && params.seconds <= 86_400.0) {
        return refuse("--seconds is more than 0, and a day at most");
    }
    if uses("rate") && params.rate > 10_000_000.0 {
        return refuse("--rate is 10,000,000 at most");
    }
    if matches!(kind, Kind::Churn | Kind::Steady) && params.rate <= 0.0 {
        return refuse("--rate has to be more than 0");
    }
    let under_way = params.publishers.saturating_mul(params.window);
    if matches!(kind, Kind::Load(Audience::Everybody))
        && params.rate == 0.0
        && under_way.saturating_mul(params.subscribers) > UNDER_WAY_MAX
    {
        return refuse("more than 10,000,000 deliveries would be under way: lower --window");
    }
    if kind.is_paired() && params.publishers != params.subscribers {
        return refuse("it pairs publishers with subscribers, so give as many of both");
    }
    Ok(())
}
