//! Lists that are fetched: from a real server over https, whatever it does.

mod alerts;
mod scene;

use std::fs;

use anyhow::{Context as _, Result, ensure};
use dnswall_agent::demo::netlink::Netlink;
use dnswall_agent::policy::resolvers_of;
use dnswall_tests::agent::Agent;
use dnswall_tests::authority::Authority;
use dnswall_tests::list_server::{ListServer, Shown};
use dnswall_tests::resolver::{ANSWER, Dnsmasq};
use dnswall_tests::wall::Wall;
use serde_json::{Value, json};

use scene::{HERE, Scene, TEN, policy, wait_until};

#[test]
fn a_list_is_fetched_and_kept_up_to_date() -> Result<()> {
    let scene = Scene::begun()?;
    let first = scene.fetch()?;
    ensure!(first["has_etag"] == true && first["entries"] == 10 && first["refresh_secs"] == 3_600, "{first}");
    ensure!(first["error"].is_null() && first["next"].is_string() && first["sha256"].is_string(), "{first}");

    let (code, said) = scene.update(&["bad"])?;
    ensure!(code == 0 && said["outcome"] == "unchanged" && said["entries"] == 10, "{code} {said}");
    let last = scene.server.requests()?.pop().context("a request")?;
    ensure!(last["If-None-Match"] == "\"1\"" && last["Accept-Encoding"] == "gzip", "{last}");
    ensure!(last["path"] == "/list.txt?token=sesame", "{last}");

    // Another version: one name more, one less.
    scene.server.serve(&TEN.replace("j.example", "new.example"), &json!({"etag": "\"2\""}))?;
    let (code, said) = scene.update(&[])?;
    ensure!(code == 0 && said["outcome"] == "changed" && said["entries"] == 10, "{code} {said}");
    ensure!(said["added"] == 1 && said["removed"] == 1, "{said}");
    ensure!(
        scene.refuses("new.example")? && !scene.refuses("j.example")? && scene.refuses("a.example")?,
        "new"
    );

    // The same again, packed, from a server that gives no tags; then in chunks.
    for how in ["gzip", "chunked"] {
        scene
            .server
            .plan(&json!({"how": how, "headers": {"Last-Modified": "Mon, 30 Nov 2026 09:00:00 GMT"}}))?;
        let (code, said) = scene.update(&[])?;
        ensure!(
            code == 0 && said["outcome"] == "changed" && said["added"] == 0 && said["removed"] == 0,
            "{how}: {code} {said}"
        );
        ensure!(said["entries"] == 10 && scene.refuses("new.example")?, "{how}: {said}");
    }
    scene.update(&[])?;
    let last = scene.server.requests()?.pop().context("a request")?;
    ensure!(last["If-Modified-Since"] == "Mon, 30 Nov 2026 09:00:00 GMT", "{last}");

    let shown = scene.wall.agent.say(&["blocklist", "status"])?.text;
    ensure!(
        shown.contains("fetched") && shown.contains("/list.txt?…") && !shown.contains("sesame"),
        "{shown}"
    );
    ensure!(!scene.wall.agent.log().contains("sesame"), "{}", scene.wall.agent.log());
    let (code, said) = scene.wall.agent.ask(&["blocklist", "update", "worse"])?;
    ensure!(code == 1 && said["error"].to_string().contains("worse"), "{code} {said}");
    let alert = scene.wall.agent.wait_for_alert(0, |alert| alert["dns"]["name"] == "a.example")?;
    ensure!(alert["rule"] == "blocklist.bad" && alert["dns"]["line"] == 1, "{alert}");
    Ok(())
}

#[test]
fn what_is_worse_never_replaces_what_was_good() -> Result<()> {
    let scene = Scene::begun()?;
    let many: String = (0..21).map(|at| format!("n{at}.example\n")).collect();
    let page = "<!DOCTYPE html>\n<html><body>\nnew.example\n</body></html>\n";
    let prose = "The list has moved.\nPlease look at our new pages for it.\nnew.example\nSorry for that!\n";
    for (body, plan, outcome, why) in [
        ("", json!({}), "refused", "it is empty"),
        ("\n# nothing\n", json!({}), "refused", "it has 0 entries"),
        ("127.0.0.1 localhost\n", json!({}), "refused", "0 entries"),
        (page, json!({}), "refused", "web page"),
        (prose, json!({}), "refused", "no list, or of another format"),
        (&TEN[..60], json!({}), "refused", "max-shrink"),
        (&many, json!({}), "refused", "max-growth"),
        (&many, json!({"how": "cut"}), "failed", "broke off"),
        (&many, json!({"how": "chunked-cut"}), "failed", "broke off"),
        (&many, json!({"how": "gzip-cut"}), "failed", "no end"),
        (&many, json!({"how": "endless"}), "failed", "does not say how long"),
        (&many, json!({"status": 500}), "failed", "500"),
        (&many, json!({"status": 206}), "failed", "206"),
        (&many, json!({"headers": {"Content-Encoding": "br"}}), "failed", "packed"),
        (&many, json!({"how": "silent"}), "failed", "within 3 s"),
        (&many, json!({"how": "slow"}), "failed", "within 3 s"),
    ] {
        scene.server.serve(body, &plan)?;
        scene.goes_on(outcome, why)?;
    }
    let elsewhere = scene.server.url("/list.txt").replace("https", "http");
    scene.server.plan(&json!({"status": 302, "headers": {"Location": elsewhere}}))?;
    scene.goes_on("failed", "without https")?;
    scene.server.plan(&json!({"status": 302, "headers": {"Location": "/list.txt"}}))?;
    scene.goes_on("failed", "redirects too often")?;

    // Somewhere else on the same server is fine; there the list shrank, on purpose.
    let plan =
        json!({"/list.txt?token=sesame": {"status": 302, "headers": {"Location": "/moved"}}, "/moved": {}});
    scene.server.serve("a.example\nnew.example\n", &plan)?;
    let (code, said) = scene.update(&[])?;
    ensure!(code == 1 && said["why"].to_string().contains("max-shrink"), "{code} {said}");
    let said = scene.wall.agent.say(&["blocklist", "update", "--accept"])?;
    ensure!(said.code == 0 && said.text.contains("2 entries, +1, -9"), "{said:?}");
    ensure!(
        scene.refuses("a.example")? && scene.refuses("new.example")? && !scene.refuses("b.example")?,
        "accepted"
    );
    let warnings = scene.wall.agent.status()?["warnings"].to_string();
    ensure!(!warnings.contains("list bad"), "{warnings}");
    ensure!(!scene.wall.agent.log().contains("sesame"), "{}", scene.wall.agent.log());
    Ok(())
}

/// A megabyte that unpacks to a gigabyte is given up at the half.
#[test]
fn what_unpacks_to_too_much_is_given_up() -> Result<()> {
    let scene = Scene::patient(Shown::Good, "5m")?.begin()?;
    scene.server.plan(&json!({"how": "bomb"}))?;
    scene.goes_on("refused", "longer than")
}

#[test]
fn the_last_good_version_goes_on_without_the_server() -> Result<()> {
    let mut scene = Scene::begun()?;
    let policy = scene.policy("");
    scene.server.stop();
    scene.goes_on("failed", "refused")?;
    scene.wall.agent.stop()?;
    ensure!(scene.refuses("a.example")?, "without an agent");
    scene.wall.agent.start(None)?;
    ensure!(
        scene.refuses("b.example")? && !scene.refuses("new.example")?,
        "after a start without the server"
    );
    // It is another policy, with the same list.
    let other = format!("{policy}min-entries = 2\n");
    let said = scene.wall.agent.apply(&other)?;
    ensure!(said.code == 0, "an earlier version is good enough: {said:?}");
    scene.wall.agent.stop()?;
    scene.wall.agent.start(Some(&format!("{policy}min-entries = 3\n")))?;
    ensure!(scene.refuses("b.example")?, "an earlier version is good enough to start with");
    // Killed while a version comes: a half of it is nothing.
    scene.server.resume()?;
    scene.server.serve(&TEN.replace("j.example", "new.example"), &json!({"how": "half-then-wait"}))?;
    let mut update = scene.wall.agent.command(&["blocklist", "update"]).spawn()?;
    wait_until("the server sent a half", || Ok(scene.server.has_sent_half()))?;
    scene.wall.agent.kill()?;
    update.wait()?;
    let lists = scene.wall.agent.state().join("lists");
    let ends = |end: &str| -> Result<usize> {
        let names = fs::read_dir(&lists)?.map(|file| Ok(file?.file_name().to_string_lossy().into_owned()));
        Ok(names.collect::<Result<Vec<_>>>()?.iter().filter(|name| name.ends_with(end)).count())
    };
    ensure!(ends(".new")? == 1, "the half is still there");
    scene.server.plan(&json!({"status": 503}))?;
    scene.wall.agent.start(None)?;
    ensure!(ends(".new")? == 0 && ends(".list")? == 1, "the half is gone");
    ensure!(scene.refuses("j.example")? && !scene.refuses("new.example")?, "the good version goes on");
    scene.server.plan(&json!({}))?;
    let (code, said) = scene.update(&[])?;
    ensure!(code == 0 && said["outcome"] == "changed" && scene.refuses("new.example")?, "{code} {said}");
    // Without its files it is fetched again by itself, as soon as the agent is there.
    scene.wall.agent.stop()?;
    fs::remove_dir_all(&lists)?;
    scene.wall.agent.start(None)?;
    wait_until("the list is fetched", || scene.refuses("new.example"))?;
    // So is a version that is due, whoever runs.
    scene.wall.agent.stop()?;
    scene.server.serve(TEN, &json!({}))?;
    let record = fs::read_dir(&lists)?.filter_map(|file| Some(file.ok()?.path()));
    let record = record.into_iter().find(|path| path.extension().is_some_and(|end| end == "json"));
    let record = record.context("what is known of the list")?;
    let mut known: Value = serde_json::from_slice(&fs::read(&record)?)?;
    known["next"] = json!("2026-01-01T00:00:00Z");
    fs::write(&record, known.to_string())?;
    scene.wall.agent.start(None)?;
    wait_until("the list is fetched when it is due", || {
        Ok(scene.refuses("j.example")? && !scene.refuses("new.example")?)
    })?;
    let mode = |path: &std::path::Path| -> Result<u32> {
        Ok(std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path)?.permissions()) & 0o777)
    };
    ensure!(mode(&lists)? == 0o700, "the directory is private");
    for file in fs::read_dir(&lists)? {
        ensure!(mode(&file?.path())? == 0o600, "the files are private");
    }
    Ok(())
}

#[test]
fn a_policy_waits_for_its_lists_and_is_refused_without_them() -> Result<()> {
    let mut scene = Scene::set()?;
    scene
        .wall
        .agent
        .start(Some("version = 1\nmode = \"enforce\"\n[dns]\nresolvers = [\"169.254.169.253\"]\n"))?;
    let policy = scene.policy("");
    let check = |agent: &Agent, policy: &str| -> Result<_> {
        let path = scene.wall.scratch("checked.toml");
        fs::write(&path, policy)?;
        agent.say(&["policy", "check", &path.to_string_lossy()])
    };
    let said = check(&scene.wall.agent, &policy)?;
    ensure!(said.code == 0 && said.text.contains("the list bad was not looked at"), "{said:?}");
    ensure!(!said.text.contains("sesame") && scene.server.requests()?.is_empty(), "{said:?}");

    // The server says 404 to begin with.
    let said = scene.wall.agent.apply(&policy)?;
    let expected = ["the list bad cannot be used", "404", "applied.toml:7:10"];
    ensure!(said.code == 3 && expected.iter().all(|what| said.errors.contains(what)), "{said:?}");
    ensure!(!said.errors.contains("sesame"), "{said:?}");
    scene.server.serve(TEN, &json!({}))?;
    let said = scene.wall.agent.apply(&format!("{policy}min-entries = 11\n"))?;
    ensure!(said.code == 3 && said.errors.contains("it has 10 entries"), "{said:?}");
    let said = scene.wall.agent.apply(&policy)?;
    ensure!(said.code == 0 && scene.refuses("a.example")?, "{said:?}");

    // So is an agent that starts with a policy that never decided.
    scene.wall.agent.stop()?;
    scene.server.plan(&json!({"status": 404}))?;
    let other = policy.replace("/list.txt", "/other.txt");
    let error = scene.wall.agent.start(Some(&other)).err().context("it starts")?.to_string();
    ensure!(error.contains("404"), "{error}");
    scene.wall.agent.end();
    Ok(())
}

#[test]
fn who_a_server_is_has_to_be_proven() -> Result<()> {
    let mut scene = Scene::with(Shown::For("lists.example.net"))?;
    scene.server.serve(TEN, &json!({}))?;
    scene.wall.agent.start(Some("version = 1\nmode = \"enforce\"\n"))?;
    let said = scene.wall.agent.apply(&scene.policy(""))?;
    ensure!(said.code == 3 && said.errors.contains("certificate"), "another host's: {said:?}");
    ensure!(scene.server.requests()?.is_empty(), "it was asked all the same");
    // An authority that nobody trusts.
    let mut stranger = Scene::set()?;
    stranger.server.serve(TEN, &json!({}))?;
    let config = fs::read_to_string(stranger.wall.agent.config_path())?;
    let ca = config.lines().find(|line| line.starts_with("ca = ")).context("the authority")?.to_owned();
    fs::write(stranger.wall.agent.config_path(), config.replace(&ca, ""))?;
    stranger.wall.agent.start(Some("version = 1\nmode = \"enforce\"\n"))?;
    let said = stranger.wall.agent.apply(&stranger.policy(""))?;
    // A host may trust nobody.
    let is_refused =
        ["UnknownIssuer", "no certificates of authorities"].iter().any(|why| said.errors.contains(why));
    ensure!(said.code == 3 && is_refused, "{said:?}");
    ensure!(stranger.server.requests()?.is_empty(), "it was asked all the same");
    Ok(())
}

#[test]
fn plain_http_is_for_this_host_and_secrets_are_sent_to_nobody_else() -> Result<()> {
    let mut scene = Scene::with(Shown::None)?;
    scene.server.serve(TEN, &json!({}))?;
    let url = scene.server.url("/list.txt").replace("http://", "http://user:sesame@");
    scene.wall.agent.start(Some(&policy(&url, "")))?;
    ensure!(scene.refuses("a.example")?, "fetched");
    let asked = scene.server.requests()?.pop().context("a request")?;
    ensure!(asked["Authorization"] == "Basic dXNlcjpzZXNhbWU=", "{asked}");
    let text = scene.wall.agent.say(&["blocklist", "status"])?.text + &scene.wall.agent.log();
    ensure!(!text.contains("sesame"), "{text}");
    // It is followed nowhere.
    scene.server.plan(&json!({"status": 302, "headers": {"Location": "/other"}}))?;
    scene.goes_on("failed", "redirects")
}

/// The wall holds for its agent, too: it asks this host's resolver, and goes where the answer leads, like anybody.
#[test]
fn the_agent_needs_a_rule_like_anybody() -> Result<()> {
    let mut wall = Wall::prepare()?;
    let (_resolver, dns) = hosts_resolver(&wall)?;
    let authority = Authority::make(wall.scratch("").as_path())?;
    let (far, shown) = (ANSWER.parse()?, Shown::For("lists.example"));
    let netns = Some(&wall.network.far);
    let server = ListServer::start(wall.probe(), wall.scratch("lists"), &authority, netns, far, shown)?;
    server.serve(TEN, &json!({}))?;
    let url = server.url("/list.txt").replace(ANSWER, "lists.example");
    let config = fs::read_to_string(wall.agent.config_path())?;
    let ca = authority.pem();
    fs::write(wall.agent.config_path(), format!("{config}[lists]\nca = {ca:?}\ntimeout = \"9s\"\n"))?;
    wall.agent.start_inside(wall.network.near.path());
    wall.agent.start_behind(wall.tree.child("dnswall.service")?);
    let top = format!("version = 1\nmode = \"enforce\"\n{dns}");
    let list = format!("[[blocklist]]\nname = \"bad\"\nsource = {url:?}\n");
    let rule = format!(
        "[[allow]]\nname = \"lists\"\nto = [\"lists.example\"]\nanswers = [\"{ANSWER}\"]\n\
         from = [{{ unit = \"dnswall.service\" }}]\n"
    );
    // It may ask nobody; it may ask, and go nowhere; it may go there.
    wall.agent.start(Some("version = 1\nmode = \"enforce\"\n"))?;
    let said = wall.agent.apply(&format!("{top}{list}"))?;
    ensure!(said.code == 3 && said.errors.contains("may dnswall.service ask the resolver?"), "{said:?}");
    let said = wall.agent.apply(&top)?;
    ensure!(said.code == 0, "{said:?}");
    let said = wall.agent.apply(&format!("{top}{list}"))?;
    ensure!(said.code == 3 && said.errors.contains("EPERM"), "{said:?}");
    ensure!(said.errors.contains("dnswall.service") && server.requests()?.is_empty(), "{said:?}");
    let said = wall.agent.apply(&format!("{top}{rule}"))?;
    ensure!(said.code == 0, "{said:?}");
    let said = wall.agent.apply(&format!("{top}{rule}{list}"))?;
    ensure!(said.code == 0 && server.requests()?.len() == 1, "{said:?}");
    Ok(())
}

/// A resolver where this host's programs look for one, in the wall's network; and what a policy says of it.
fn hosts_resolver(wall: &Wall) -> Result<(Dnsmasq, String)> {
    let found = resolvers_of(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
    let at = found.first().copied().unwrap_or(HERE);
    if at.is_loopback() {
        let stub = Some(wall.tree.child("stub.service")?);
        let from = "from = [{ unit = \"stub.service\" }]";
        let resolver = Dnsmasq::start(wall.probe(), &wall.network.near, stub, &[at])?;
        return Ok((resolver, format!("[[dns.stub]]\naddress = \"{at}\"\n{from}\n")));
    }
    let bits = if at.is_ipv4() { 32 } else { 128 };
    wall.network.far.run(|| Netlink::open()?.add_own_network(at, bits))?;
    let resolver = Dnsmasq::start(wall.probe(), &wall.network.far, None, &[at])?;
    Ok((resolver, format!("[dns]\nresolvers = [\"{at}\"]\n")))
}

/// A file is measured like what is fetched.
#[test]
fn a_file_that_shrank_counts_when_it_is_accepted() -> Result<()> {
    let mut scene = Scene::set()?;
    let path = scene.wall.scratch("list.txt");
    fs::write(&path, TEN)?;
    let policy = format!(
        "version = 1\nmode = \"enforce\"\n[dns]\nresolvers = [\"169.254.169.253\"]\n\
         [[blocklist]]\nname = \"bad\"\nsource = {path:?}\nmax-shrink = \"50%\"\n"
    );
    scene.wall.agent.start(Some(&policy))?;
    fs::write(&path, "a.example\nnew.example\n")?;
    let (code, said) = scene.update(&[])?;
    ensure!(code == 1 && said["outcome"] == "refused" && said["entries"] == 10, "{code} {said}");
    ensure!(scene.refuses("b.example")? && !scene.refuses("new.example")?, "what was read goes on");
    let (code, said) = scene.update(&["bad", "--accept"])?;
    ensure!(code == 0 && said["added"] == 1 && said["removed"] == 9, "{code} {said}");
    ensure!(!scene.refuses("b.example")? && scene.refuses("new.example")?, "accepted");
    // From here on it is this one that the next is compared with.
    fs::write(&path, "a.example\n")?;
    let (code, said) = scene.update(&[])?;
    ensure!(code == 0 && said["entries"] == 1 && said["removed"] == 1, "{code} {said}");
    let (code, said) = scene.update(&[])?;
    ensure!(code == 0 && said["outcome"] == "unchanged", "{code} {said}");
    Ok(())
}
