//! `init` and `doctor`: create what a store needs, and measure what it promises.

use std::process::ExitCode;

use serde::Serialize;
use tenure::core::store::{Finding, InitOptions, Verdict};

use crate::args::{Arguments, ClockChoice, Init};
use crate::exit::{Failure, MISCONFIGURED};
use crate::output::{self, Form};
use crate::store::{self, Default as Own};

/// Schema `tenure.finding.1`.
#[derive(Serialize)]
struct Found<'a> {
    schema: &'static str,
    #[serde(flatten)]
    finding: &'a Finding,
}

pub(super) async fn init(arguments: &Arguments, init: &Init) -> Result<ExitCode, Failure> {
    let chosen = store::choose(arguments, Own::Allowed)?;
    let admin = tenure::connect::admin(&chosen.url, &mut tenure::chance_of_system()?).await?;
    if init.print {
        output::line(admin.setup().trim_end()).map_err(|error| Failure::stdout(&error))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut options = InitOptions::default();
    options.cluster.clone_from(&init.cluster);
    options.observed = init.clock == ClockChoice::Observed;
    let id = admin.init(&options).await?;
    let told = match Form::of(arguments.common.json) {
        Form::Json => output::json_line(&serde_json::json!({
            "schema": "tenure.store.1", "store": id.to_string(), "cluster": init.cluster,
        })),
        Form::Human => output::line(&format!("the store is ready; its id is {id}")),
    };
    told.map_err(|error| Failure::stdout(&error))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn doctor(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let chosen = store::choose(arguments, Own::Allowed)?;
    let admin = tenure::connect::admin(&chosen.url, &mut tenure::chance_of_system()?).await?;
    let findings = admin.diagnose().await?;
    let printed = match Form::of(arguments.common.json) {
        Form::Json => findings.iter().try_for_each(|finding| {
            output::json_line(&Found { schema: "tenure.finding.1", finding })
        }),
        Form::Human => output::table(&["check", "verdict", "detail"], findings.iter().map(row)),
    };
    printed.map_err(|error| Failure::stdout(&error))?;
    let bad = findings.iter().any(|finding| finding.verdict == Verdict::Bad);
    Ok(if bad { ExitCode::from(MISCONFIGURED) } else { ExitCode::SUCCESS })
}

fn row(finding: &Finding) -> Vec<String> {
    let verdict = match finding.verdict {
        Verdict::Good => "good",
        Verdict::Limited => "limited",
        Verdict::Bad => "bad",
    };
    vec![finding.check.clone(), verdict.to_owned(), finding.detail.clone()]
}
