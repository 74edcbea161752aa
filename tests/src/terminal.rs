//! A terminal that a program takes for a real one, and what is on its screen.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::num::NonZeroU16;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, ioctl_tiocsctty, kill_process, setsid};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize};

use crate::pace::within;

/// A program at a terminal of its own.
pub struct Terminal {
    child: Child,
    /// The side of whoever sits at it.
    near: File,
    /// The program's side, which stays when that ends.
    far: File,
    before: Termios,
    emulator: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    /// Starts a program at a terminal of this size.
    ///
    /// # Errors
    /// The kernel's.
    pub fn start(mut command: Command, rows: u16, columns: u16) -> Result<Self> {
        let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&near)?;
        unlockpt(&near)?;
        let name = ptsname(&near, Vec::new())?;
        let name = name.to_str().context("name the terminal")?;
        let far = OpenOptions::new().read(true).write(true).open(name).context("open the terminal")?;
        tcsetwinsize(&far, size(rows, columns))?;
        let before = tcgetattr(&far)?;
        command.stdin(far.try_clone()?).stdout(far.try_clone()?).stderr(far.try_clone()?);
        command.env("TERM", "xterm-256color");
        let become_its_own = || {
            setsid()?;
            Ok(ioctl_tiocsctty(rustix::stdio::stdin())?)
        };
        // SAFETY: between fork and exec it makes two system calls, and allocates nothing.
        unsafe { command.pre_exec(become_its_own) };
        let child = command.spawn().context("start a program at a terminal")?;
        let near = File::from(near);
        let emulator = Arc::new(Mutex::new(vt100::Parser::new(cells(rows)?, cells(columns)?, 0)));
        let (mut read, shown) = (near.try_clone()?, Arc::clone(&emulator));
        thread::spawn(move || {
            let mut bytes = [0; 4_096];
            // An error says that nobody has it open any more.
            while let Ok(count @ 1..) = read.read(&mut bytes) {
                locked(&shown).process(&bytes[..count]);
            }
        });
        Ok(Self { child, near, far, before, emulator })
    }

    /// What is on the screen.
    pub fn screen(&self) -> String {
        locked(&self.emulator).screen().contents()
    }

    /// Lets somebody look at the screen, each cell with its colours.
    pub fn look<T>(&self, at: impl FnOnce(&vt100::Screen) -> T) -> T {
        at(locked(&self.emulator).screen())
    }

    /// Waits until the screen is as wanted, and gives it.
    ///
    /// # Errors
    /// When it never is.
    pub fn wait_for(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let until = Instant::now() + within(WAIT);
        loop {
            let screen = self.screen();
            if wanted(&screen) {
                return Ok(screen);
            }
            let ended = self.child.try_wait()?;
            ensure!(ended.is_none() && Instant::now() < until, "{what}: {ended:?}\n{screen}");
            thread::sleep(EVERY);
        }
    }

    /// Types keys.
    ///
    /// # Errors
    /// When nobody is there.
    pub fn press(&mut self, keys: &str) -> Result<()> {
        self.near.write_all(keys.as_bytes()).context("press keys")
    }

    /// Makes it larger or smaller.
    ///
    /// # Errors
    /// The kernel's.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        locked(&self.emulator).screen_mut().set_size(cells(rows)?, cells(columns)?);
        tcsetwinsize(&self.near, size(rows, columns)).context("resize the terminal")
    }

    /// Sends the program a signal.
    ///
    /// # Errors
    /// The kernel's.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.child), signal).context("signal the program")
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it does not end.
    pub fn ended(&mut self) -> Result<ExitStatus> {
        let until = Instant::now() + within(WAIT);
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(Instant::now() < until, "it does not end\n{}", self.screen());
            thread::sleep(EVERY);
        }
    }

    /// Whether a program has the whole screen and every key for itself.
    ///
    /// # Errors
    /// The kernel's.
    pub fn is_taken(&self) -> Result<bool> {
        let raw = !tcgetattr(&self.far)?.local_modes.contains(LocalModes::ICANON);
        Ok(raw && locked(&self.emulator).screen().alternate_screen())
    }

    /// Whether everything is as it was before the program came, and the cursor is to be seen.
    ///
    /// # Errors
    /// The kernel's.
    pub fn is_as_before(&self) -> Result<bool> {
        let now = tcgetattr(&self.far)?;
        let modes = |it: &Termios| (it.input_modes, it.output_modes, it.control_modes, it.local_modes);
        // What the program wrote last may still be on its way here.
        thread::sleep(within(Duration::from_millis(200)));
        let emulator = locked(&self.emulator);
        let screen = emulator.screen();
        Ok(modes(&now) == modes(&self.before) && !screen.alternate_screen() && !screen.hide_cursor())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn cells(count: u16) -> Result<NonZeroU16> {
    NonZeroU16::new(count).context("a terminal has rows and columns")
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const EVERY: Duration = Duration::from_millis(50);
const WAIT: Duration = Duration::from_secs(20);
