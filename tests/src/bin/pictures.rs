//! Pictures for the documentation: a wall of its own, made-up traffic that really flows, what `dnswall top` shows of it on a terminal and
//! what a real Prometheus does, drawn by headless Chromium.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use dnswall_tests::act::{Act, address, dns, tcp, udp};
use dnswall_tests::place;
use dnswall_tests::process::Process;
use dnswall_tests::prometheus::{Prometheus, free_address};
use dnswall_tests::resolver::{FOREIGN, RESOLVER};
use dnswall_tests::terminal::Terminal;
use dnswall_tests::wall::Wall;
use dnswall_tests::who::{Exe, Who, at};
use rustix::thread::UnshareFlags;

/// Draws `dnswall top` into PNG files.
#[derive(Parser)]
struct Arguments {
    /// Where to.
    directory: PathBuf,
    /// How long there is traffic before it is drawn, in seconds.
    #[arg(long, default_value_t = 40)]
    traffic: u64,
}

const POLICY: &str = r#"
version = 1
mode = "enforce"
[dns]
resolvers = ["169.254.169.253"]
events = "all"
[[deny]]
name = "tunnels"
to = ["*.exfil.example"]
[[allow]]
name = "orders database"
to = ["10.0.3.0/24"]
ports = ["tcp/5432"]
[[allow]]
name = "payments"
to = ["10.0.8.0/24"]
ports = ["tcp/443"]
"#;

/// Who has how many connections open, and where to.
const TALKS: [(&str, &str, u32, &str, usize); 6] = [
    ("web.service", "nginx", 33, "10.0.3.7:5432", 12),
    ("orders.service", "python3", 65_534, "10.0.3.7:5432", 5),
    ("orders.service", "python3", 65_534, "10.0.8.20:443", 3),
    ("billing.service", "java", 65_534, "10.0.8.20:443", 4),
    ("billing.service", "java", 65_534, "10.0.3.9:5432", 2),
    ("backup.service", "restic", 34, "10.0.3.9:5432", 1),
];
const NAMES: [(&str, &str, &str); 7] = [
    ("orders.service", "python3", "db-1.prod.example"),
    ("orders.service", "python3", "payments.prod.example"),
    ("web.service", "nginx", "db-1.prod.example"),
    ("billing.service", "java", "payments.prod.example"),
    ("billing.service", "java", "tax-rates.gov.example"),
    ("jobs.service", "node", "aGVsbG8gd29ybGQ.t1.exfil.example"),
    ("jobs.service", "node", "c2Vjb25kIGNodW5r.t1.exfil.example"),
];

fn main() -> ExitCode {
    let Arguments { directory, traffic } = Arguments::parse();
    match draw(&directory, Duration::from_secs(traffic)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn draw(directory: &Path, traffic: Duration) -> Result<()> {
    fs::create_dir_all(directory)?;
    // A name for this host that is nobody's.
    // SAFETY: of this thread alone, which is the only one.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUTS) }.context("make a UTS namespace")?;
    rustix::system::sethostname(b"web-1")?;
    let mut wall = Wall::prepare()?;
    let target = free_address()?;
    let mut config = fs::read_to_string(wall.agent.config_path())?;
    config.push_str(&format!("[metrics]\naddress = \"{target}\"\n"));
    fs::write(wall.agent.config_path(), config)?;
    wall.agent.start(None)?;
    let policy = wall.scratch("production.toml");
    fs::write(&policy, POLICY)?;
    let said = wall.agent.say(&["policy", "apply", &policy.to_string_lossy()])?;
    ensure!(said.code == 0, "{said:?}");
    let to = TALKS.map(|(.., to, _)| address(to)).into_iter().collect();
    wall.echo(&to, &[].into())?;
    let _held = hold(&wall)?;
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus/dnswall.rules.yml");
    let prometheus = Prometheus::start(&wall.scratch("prometheus"), target, &rules.canonicalize()?)?;
    let mut terminal = Terminal::start(top(&wall), 26, 118)?;
    go_on(&wall, traffic / 2)?;
    let flood = Act::Flood { to: vec![address("203.0.113.9:8333")], one_socket: false };
    let flood = wall.start(&who("jobs.service", "xmrig", 65_534), flood)?;
    go_on(&wall, traffic / 2)?;
    for (keys, name) in
        [("1", "workloads"), ("2", "connections"), ("3", "refused"), ("4", "names"), ("3\x1b[B\r", "row")]
    {
        terminal.press(keys)?;
        go_on(&wall, Duration::from_millis(2_500))?;
        let html = directory.join(format!("top-{name}.html"));
        fs::write(&html, terminal.look(page))?;
        let url = format!("file://{}", html.canonicalize()?.display());
        photograph(&url, &directory.join(format!("top-{name}.png")), (1_020, 492))?;
        fs::remove_file(&html)?;
    }
    terminal.press("qq")?;
    terminal.ended()?;
    drop(flood);
    let web = format!("http://{}", prometheus.address());
    let graph = format!("{web}/graph?g0.expr={REFUSED}&g0.tab=0&g0.range_input=2m&g0.stacked=1");
    photograph(&graph, &directory.join("prometheus-refused.png"), (1_100, 900))
}

/// What is drawn by Prometheus: refusals a second, by rule.
const REFUSED: &str = "sum%20by%20(rule)%20(rate(dnswall_rule_refusals_total%5B15s%5D))";

/// Connections that stay.
fn hold(wall: &Wall) -> Result<Vec<Process>> {
    let mut held = Vec::new();
    for (unit, program, uid, to, count) in TALKS {
        for _ in 0..count {
            let mut process =
                wall.start(&who(unit, program, uid), Act::Hold { to: address(to), tcp: true })?;
            ensure!(process.exchange()?.ok, "{unit} to {to}");
            held.push(process);
        }
    }
    Ok(held)
}

/// Questions and attempts, one after the other.
fn go_on(wall: &Wall, time: Duration) -> Result<()> {
    let until = Instant::now() + time;
    while Instant::now() < until {
        for (unit, program, name) in NAMES {
            let act = Act::Dns { server: (RESOLVER, 53).into(), tcp: false, name: name.to_owned() };
            wall.run(&who(unit, program, 65_534), act)?;
        }
        wall.run(&who("jobs.service", "node", 65_534), tcp("203.0.113.66:443"))?;
        wall.run(&who("jobs.service", "node", 65_534), udp("203.0.113.66:443"))?;
        wall.run(&who("cron.service", "curl", 0), tcp("198.51.100.10:80"))?;
        wall.run(&who("web.service", "nginx", 33), dns(FOREIGN))?;
    }
    Ok(())
}

fn top(wall: &Wall) -> Command {
    let mut command = wall.agent.command(&["top", "--interval", "1s"]);
    command.env_remove("NO_COLOR");
    command
}

fn who(unit: &'static str, program: &'static str, uid: u32) -> Who {
    at(unit).uid(uid).exe(Exe::Copy(program))
}

/// The screen as a page.
fn page(screen: &vt100::Screen) -> String {
    let (rows, columns) = screen.size();
    let mut lines = String::new();
    for row in 0..rows.get() {
        for column in 0..columns.get() {
            let Some(cell) = screen.cell(row, column).filter(|cell| !cell.is_wide_continuation()) else {
                continue;
            };
            let text = if cell.has_contents() { cell.contents() } else { " " };
            let text = text.replace('&', "&amp;").replace('<', "&lt;");
            let (mut front, mut back) =
                (colour(cell.fgcolor(), "#d8dee9"), colour(cell.bgcolor(), "#14181f"));
            if cell.inverse() {
                (front, back) = (back, front);
            }
            let weight = if cell.bold() { "bold" } else { "normal" };
            let line = if cell.underline() { "underline" } else { "none" };
            lines.push_str(&format!(
                "<span style=\"color:{front};background:{back};font-weight:{weight};text-decoration:{line}\">{text}</span>"
            ));
        }
        lines.push('\n');
    }
    format!(
        "<!doctype html><meta charset=utf-8><style>body{{margin:0;background:#14181f}}\
         pre{{margin:12px;font:14px/18px 'DejaVu Sans Mono',monospace}}</style><pre>{lines}</pre>"
    )
}

fn colour(colour: vt100::Color, usual: &str) -> String {
    match colour {
        vt100::Color::Default => usual.to_owned(),
        vt100::Color::Idx(index) => PALETTE.get(usize::from(index)).copied().unwrap_or(usual).to_owned(),
        vt100::Color::Rgb(red, green, blue) => format!("#{red:02x}{green:02x}{blue:02x}"),
    }
}

const PALETTE: [&str; 16] = [
    "#14181f", "#f2606b", "#8fce6a", "#f0c060", "#6aa5f0", "#c58af0", "#5fc7d0", "#d8dee9", "#7b8699",
    "#ff8089", "#a9e585", "#ffd780", "#8abdff", "#dbaaff", "#7fe2ea", "#ffffff",
];

fn photograph(url: &str, to: &Path, (width, height): (u32, u32)) -> Result<()> {
    let status = Command::new(place::on_path("chromium")?)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--virtual-time-budget=8000",
        ])
        .arg(format!("--window-size={width},{height}"))
        .arg(format!("--screenshot={}", to.display()))
        .arg(url)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("start chromium")?;
    ensure!(status.success() && to.is_file(), "chromium: {status}");
    Ok(())
}
