//! The page: one section per scenario, all runs in it. It needs nothing but itself.

use std::fmt::Write;

use crate::outcome::{Outcome, Phase, Run, mebibytes, plural, thousands};
use crate::plot::{Line, Scale, escaped, plot};

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:15px/1.5 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem}\
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}\
th,td{padding:.25rem .6rem;text-align:right;border-bottom:1px solid #8884}\
th:first-child,td:first-child,th:nth-child(2),td:nth-child(2){text-align:left}\
section{margin:2.5rem 0}h2{margin-bottom:.2rem}.about,.note{opacity:.75;margin:.2rem 0}\
.failed{color:#c00}.plots{display:flex;flex-wrap:wrap;gap:1rem}\
figure{margin:.5rem 0;flex:1 1 22rem}figcaption{font-size:13px}\
svg{width:100%;height:auto}svg text{font-size:11px;fill:currentColor}\
.grid{stroke:#8884;fill:none}.line{fill:none;stroke-width:1.6}";

const MEBIBYTE: f64 = (1 << 20) as f64;

/// The page of some runs.
pub(crate) fn page(runs: &[Run]) -> String {
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>dunlin-bench</title><style>{STYLE}</style><h1>MQTT benchmark</h1>\
         <table><tr><th>broker</th><th>target</th><th>protocol</th><th>date</th><th>tool</th></tr>"
    );
    for run in runs {
        let _ = write!(page, "<tr>");
        for text in [&run.broker, &run.target, &run.protocol, &run.date, &run.tool] {
            let _ = write!(page, "<td>{}</td>", escaped(text));
        }
        let _ = write!(page, "</tr>");
    }
    page.push_str("</table>");
    let mut names: Vec<&str> = Vec::new();
    for outcome in runs.iter().flat_map(|run| &run.outcomes) {
        if !names.contains(&outcome.scenario.as_str()) {
            names.push(&outcome.scenario);
        }
    }
    for name in names {
        let of_run = |run: &'_ Run| -> Vec<(String, Outcome)> {
            let outcomes = run.outcomes.iter().filter(|outcome| outcome.scenario == name);
            outcomes.map(|outcome| (run.broker.clone(), outcome.clone())).collect()
        };
        let outcomes: Vec<_> = runs.iter().flat_map(of_run).collect();
        section(&mut page, name, &outcomes);
    }
    page.push_str("</html>\n");
    page
}

fn section(page: &mut String, name: &str, outcomes: &[(String, Outcome)]) {
    let about = outcomes.first().map_or("", |(_, outcome)| &outcome.about);
    let _ = write!(
        page,
        "<section><h2>{}</h2><p class=\"about\">{}</p><table><tr>\
         <th>broker</th><th>phase</th><th>count</th><th>per second</th>\
         <th>broker CPU us each</th><th>RSS after</th><th>RSS at most</th>\
         <th>p50 ms</th><th>p90</th><th>p99</th><th>p99.9</th><th>max</th>\
         <th>lost</th><th>again</th><th>out of order</th></tr>",
        escaped(name),
        escaped(about)
    );
    for (broker, outcome) in outcomes {
        for phase in &outcome.phases {
            row(page, broker, phase);
        }
    }
    page.push_str("</table>");
    for (broker, outcome) in outcomes {
        let mut notes = vec![outcome.figures.clone()];
        notes.extend(outcome.scaled.iter().map(|scaled| format!("scaled {scaled}")));
        notes.extend(outcome.phases.iter().flat_map(|phase| phase.notes.clone()));
        for note in notes {
            let _ = write!(page, "<p class=\"note\">{}: {}</p>", escaped(broker), escaped(&note));
        }
        if let Some(failed) = &outcome.failed {
            let _ = write!(
                page,
                "<p class=\"failed\">{}: failed: {}</p>",
                escaped(broker),
                escaped(failed)
            );
        }
    }
    plots(page, outcomes);
    page.push_str("</section>");
}

fn row(page: &mut String, broker: &str, phase: &Phase) {
    let mut cells = vec![
        escaped(broker),
        phase.name.clone(),
        format!("{} {}", thousands(phase.count as f64), plural(&phase.unit)),
        thousands(phase.per_s),
    ];
    match &phase.broker {
        Some(usage) => cells.extend([
            format!("{:.3}", usage.cpu_us_each),
            mebibytes(usage.rss_after_bytes),
            mebibytes(usage.rss_max_bytes),
        ]),
        None => cells.extend([const { String::new() }; 3]),
    }
    match &phase.latency {
        Some(latency) => {
            let figures =
                [latency.p50_us, latency.p90_us, latency.p99_us, latency.p999_us, latency.max_us];
            cells.extend(figures.map(|us| format!("{:.3}", us / 1e3)));
        }
        None => cells.extend([const { String::new() }; 5]),
    }
    match &phase.account {
        Some(account) => {
            cells.extend(
                [account.lost, account.duplicated, account.out_of_order]
                    .map(|count| thousands(count as f64).trim_end_matches(".0").to_owned()),
            );
        }
        None => cells.extend([const { String::new() }; 3]),
    }
    let _ = write!(page, "<tr>");
    for cell in cells {
        let _ = write!(page, "<td>{cell}</td>");
    }
    let _ = write!(page, "</tr>");
}

/// Latency as a distribution, throughput and memory over time: each phase of each run a line.
fn plots(page: &mut String, outcomes: &[(String, Outcome)]) {
    let lines = |points: fn(&Phase) -> Vec<(f64, f64)>| -> Vec<Line> {
        let phases = outcomes.iter().flat_map(|(broker, outcome)| {
            outcome.phases.iter().map(move |phase| Line {
                name: format!("{broker} {}", phase.name),
                points: points(phase),
            })
        });
        phases.filter(|line| line.points.len() > 1).collect()
    };
    let latency = lines(|phase| {
        let cdf = phase.latency.as_ref().map(|latency| latency.cdf.clone()).unwrap_or_default();
        cdf.into_iter().map(|(us, share)| (us / 1e3, share)).collect()
    });
    let throughput =
        lines(|phase| phase.series.iter().map(|sample| (sample.at_s, sample.per_s)).collect());
    let memory = lines(|phase| {
        let samples = phase.series.iter().filter(|sample| sample.broker_rss_bytes > 0);
        samples.map(|sample| (sample.at_s, sample.broker_rss_bytes as f64 / MEBIBYTE)).collect()
    });
    let disk = lines(|phase| {
        let is_known = phase.disk.is_some();
        let samples = phase.series.iter().filter(|_| is_known);
        samples.map(|sample| (sample.at_s, sample.disk_bytes as f64 / MEBIBYTE)).collect()
    });
    let time = ("seconds", Scale::Linear);
    let _ = write!(
        page,
        "<div class=\"plots\">{}{}{}{}</div>",
        plot(&latency, ("milliseconds", Scale::Log), ("share that took no longer", Scale::Nines)),
        plot(&throughput, time, ("per second", Scale::Linear)),
        plot(&memory, time, ("broker's memory, MiB", Scale::Linear)),
        if disk.is_empty() {
            String::new()
        } else {
            plot(&disk, time, ("on disk, MiB", Scale::Linear))
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Latency, Sample};
    use crate::scenario::Params;

    #[test]
    fn the_page_holds_every_scenario_and_fetches_nothing() {
        let sample = |at_s| Sample {
            at_s,
            per_s: 5.0,
            broker_rss_bytes: 1,
            broker_cores: 0.1,
            disk_bytes: 0,
        };
        let phase = Phase {
            name: "messages".into(),
            unit: "delivery".into(),
            count: 7,
            seconds: 1.0,
            per_s: 7.0,
            latency: Some(Latency {
                count: 7,
                mean_us: 1.0,
                p50_us: 1.0,
                p90_us: 2.0,
                p99_us: 3.0,
                p999_us: 4.0,
                max_us: 4.0,
                cdf: vec![(1.0, 0.5), (4.0, 1.0)],
            }),
            account: None,
            broker: None,
            disk: None,
            generator_cpu_s: 0.0,
            series: vec![sample(0.5), sample(1.0)],
            notes: vec!["a note".into()],
        };
        let outcome = |scenario: &str| Outcome {
            scenario: scenario.into(),
            about: "what it is".into(),
            params: Params::default(),
            figures: "publishers 7".into(),
            scaled: Some("to 10 %".into()),
            failed: Some("it <broke>".into()),
            phases: vec![phase.clone()],
        };
        let run = Run {
            tool: "t".into(),
            date: "d".into(),
            broker: "b".into(),
            target: "h:1".into(),
            protocol: "p".into(),
            outcomes: vec![outcome("one"), outcome("two")],
        };
        let page = page(&[run]);
        for text in ["<h2>one</h2>", "<h2>two</h2>", "a note", "to 10 %", "it &lt;broke&gt;"] {
            assert!(page.contains(text), "{text}");
        }
        assert_eq!(page.matches("<svg").count(), 6);
        assert!(!page.contains("src=") && !page.contains("href="));
    }
}
