//! `dnswall alert test`

use super::args::{AlertTestArguments, Form};
use super::exit::{Exit, Failure};
use super::output::{self, BAD, GOOD, STRONG, paint, table};
use crate::control::api::{AlertTestRequest, AlertTested, StepShown};
use crate::control::client::Client;

pub async fn test(form: Form, client: &Client, arguments: &AlertTestArguments) -> Result<Exit, Failure> {
    let request = AlertTestRequest { within_secs: arguments.within.as_secs() };
    let tested = client.test_alerts(&request).await?;
    output::answer(form, &tested, text);
    Ok(if tested.passed { Exit::Done } else { Exit::No })
}

fn text(tested: &AlertTested) -> String {
    let AlertTested { number, id, time: _, passed, steps } = tested;
    let said = if *passed {
        paint(GOOD, "the alert came everywhere")
    } else {
        paint(BAD, "the alert did NOT come everywhere")
    };
    let rows = steps.iter().map(|StepShown { name, passed, micros, note }| {
        let result = if *passed { "ok" } else { "FAILED" };
        let time = micros.map_or_else(|| "-".to_owned(), |micros| format!("{:.1} ms", micros as f64 / 1e3));
        vec![name.clone(), result.to_owned(), time, note.clone().unwrap_or_default()]
    });
    format!(
        "{}\n{}\n{said}",
        paint(STRONG, format_args!("test {number}, alert {id}")),
        table(&["step", "", "time", ""], rows)
    )
}
