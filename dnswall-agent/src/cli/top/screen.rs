//! A terminal that shows pictures until somebody has seen enough. However it ends, the terminal is as it was before.

use std::io;
use std::time::Duration;

use crossterm::event::{Event, KeyEvent};
use ratatui::DefaultTerminal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::draw::{Paint, draw};
use super::state::{Asked, State};
use crate::cli::exit::{Exit, Failure};
use crate::control::api::Picture;
use crate::control::client::{Client, ClientError};

/// Keys that were pressed and are not done yet.
const KEYS_MAX: usize = 64;

/// Shows one picture after another.
pub async fn show(client: &Client, interval: Duration) -> Result<Exit, Failure> {
    // Without an agent there is nothing to show, and the terminal stays as it is.
    let mut state = State::new(client.picture().await?);
    let mut signals = Signals::catch().map_err(|error| cannot(&error))?;
    let mut pictures = pictures(client.clone(), interval);
    let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut screen = Screen::take().map_err(|error| cannot(&error))?;
    let mut keys = keys().map_err(|error| cannot(&error))?;
    loop {
        screen.draw(&mut state, Paint { colour }).map_err(|error| cannot(&error))?;
        tokio::select! {
            key = keys.recv() => match key.map(|input| input.map(|key| state.press(key))) {
                Some(None | Some(Asked::Nothing)) => {}
                Some(Some(Asked::Suspend)) => screen.suspend().map_err(|error| cannot(&error))?,
                // Quit, or the terminal is gone.
                Some(Some(Asked::Quit)) | None => return Ok(Exit::Done),
            },
            Some(picture) = pictures.recv() => match picture {
                Ok(picture) => state.see(*picture),
                Err(error) => state.miss(error),
            },
            () = signals.any() => return Ok(Exit::Done),
        }
    }
}

fn cannot(error: &io::Error) -> Failure {
    Failure::new(Exit::HostCannot, format!("use the terminal: {error}"))
        .hint("`dnswall top --once` prints one picture")
}

/// A picture each interval, or why there is none.
fn pictures(client: Client, interval: Duration) -> mpsc::Receiver<Result<Box<Picture>, String>> {
    // One at a time: a slow agent is asked less often.
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(interval).await;
            let picture = client.picture().await.map(Box::new).map_err(|error| short(&error));
            if sender.send(picture).await.is_err() {
                return;
            }
        }
    });
    receiver
}

fn short(error: &ClientError) -> String {
    match error {
        ClientError::Unreachable { why, .. } => why.clone(),
        ClientError::Refused { body, .. } => body.error.clone(),
    }
}

/// Keys as they are pressed; nothing for each time that the screen has changed its size.
fn keys() -> io::Result<mpsc::Receiver<Option<KeyEvent>>> {
    let (sender, receiver) = mpsc::channel(KEYS_MAX);
    let read = move || {
        loop {
            let input = match crossterm::event::read() {
                Ok(Event::Key(key)) => Some(key),
                Ok(Event::Resize(..)) => None,
                Ok(_) => continue,
                // The terminal is gone.
                Err(_) => return,
            };
            if sender.blocking_send(input).is_err() {
                return;
            }
        }
    };
    // Not waited for at the end: it waits for a key.
    std::thread::Builder::new().name("keys".to_owned()).spawn(read)?;
    Ok(receiver)
}

/// The terminal, taken.
struct Screen {
    terminal: DefaultTerminal,
}

impl Screen {
    /// Takes it; a panic gives it back before it says anything.
    fn take() -> io::Result<Self> {
        let taken = ratatui::try_init().map(|terminal| Self { terminal });
        if taken.is_err() {
            let _ = ratatui::try_restore();
        }
        taken
    }

    fn draw(&mut self, state: &mut State, paint: Paint) -> io::Result<()> {
        self.terminal.draw(|frame| draw(frame, state, paint)).map(drop)
    }

    /// Gives it back, stops until somebody continues this, and takes it again.
    fn suspend(&mut self) -> io::Result<()> {
        self.terminal.show_cursor()?;
        ratatui::try_restore()?;
        rustix::process::kill_current_process_group(rustix::process::Signal::TSTP)?;
        self.terminal = ratatui::try_init()?;
        self.terminal.clear()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // There is nobody left to tell.
        let _ = self.terminal.show_cursor();
        let _ = ratatui::try_restore();
    }
}

/// What ends a program.
struct Signals {
    all: [tokio::signal::unix::Signal; 4],
}

impl Signals {
    fn catch() -> io::Result<Self> {
        let [interrupt, terminate, hangup, quit] =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup(), SignalKind::quit()]
                .map(signal);
        Ok(Self { all: [interrupt?, terminate?, hangup?, quit?] })
    }

    async fn any(&mut self) {
        let [interrupt, terminate, hangup, quit] = &mut self.all;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            _ = quit.recv() => {}
        }
    }
}
