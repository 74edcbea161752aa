//! A socket without memory for its owner (`net.core.optmem_max`; the namespace's own from 6.8) escapes no rule.

use anyhow::{Result, bail, ensure};
use dnswall_tests::act::{address, disguised, udp};
use dnswall_tests::feature::Feature;
use dnswall_tests::trick::Disguise;
use dnswall_tests::wall::Wall;
use dnswall_tests::who::at;

#[test]
fn a_socket_without_storage_escapes_no_rule() -> Result<()> {
    nothing_leaves("version = 1\nmode = \"enforce\"\n")
}

/// Nobody knows then that it is of the one workload that is walled.
#[test]
fn nor_does_it_where_one_workload_alone_is_walled() -> Result<()> {
    nothing_leaves(
        "version = 1\nmode = \"audit\"\n[[scope]]\nname = \"walled\"\nmode = \"enforce\"\n\
         from = [{ unit = \"app.service\" }]\n",
    )
}

fn nothing_leaves(mode: &str) -> Result<()> {
    let mut wall = Wall::raise(&format!(
        "{mode}[[deny]]\nname = \"probe\"\nto = [\"10.0.4.0/24\"]\nfrom = [{{ exe = \"{{probe}}\" }}]\n\
         [[allow]]\nname = \"all\"\nto = [\"10.0.0.0/16\"]\n"
    ))?;
    let to = address("10.0.4.8:9000");
    wall.echo(&[].into(), &[to].into())?;
    let app = at("app.service");
    ensure!(wall.run(&app, udp("10.0.4.8:9000"))?.is_refused());
    let report = wall.run(&app, disguised(Disguise::NoSocketMemory, udp("10.0.4.8:9000")))?;
    ensure!(!report.ok, "LEAKED: {report:?}");
    let feature = Feature::OwnSocketMemory;
    if !feature.is_here()? {
        if let Some(wrong) = feature.lacking(&report) {
            bail!(wrong);
        }
        println!("not run: {}", feature.name());
        return Ok(());
    }
    let failed = &wall.agent.status()?["counters"]["storage-failed"];
    ensure!(failed.as_u64() > Some(0), "there was memory for it: {failed}");
    Ok(())
}
