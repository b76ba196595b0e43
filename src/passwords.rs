//! Passwords: argon2id with the parameters of OWASP, on as many threads of their own as there are cores,
//! which give way to everything else, so that a storm of sign-ins starves nothing.

use std::{
    collections::HashSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Duration,
};

use argon2::{
    Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version,
    password_hash::phc::PasswordHash,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::oneshot;

use crate::error::{Error, Result};

/// The shortest new password, in characters (ASVS 6.2.1).
pub const SHORTEST: usize = 8;
/// The longest password, in bytes: hashing takes time by length (ASVS 6.2.9).
pub const LONGEST: usize = 1024;
/// What is tried first (ASVS 6.2.4): those of the 20,000 most used passwords that Django ships, from
/// the list of Royce Williams, that are long enough; lowercase, one a line.
static GUESSED: LazyLock<HashSet<&str>> =
    LazyLock::new(|| include_str!("passwords/guessed.txt").lines().collect());
/// Memory in KiB, passes and lanes (ASVS appendix C, OWASP).
const COST: (u32, u32, u32) = (19_456, 2, 1);
/// How many may wait for each core.
const WAITING: usize = 16;

type Job = Box<dyn FnOnce() + Send>;

pub struct Passwords {
    argon2: Argon2<'static>,
    /// Ends the threads when it is dropped.
    jobs: SyncSender<Job>,
    /// What a password is compared with when there is no account, so that it takes as long.
    nobody: String,
    /// How a hash with today's parameters begins.
    current: String,
}

impl Passwords {
    /// # Errors
    /// When the parameters are refused, there is no randomness, or no thread.
    pub fn new() -> Result<Self> {
        let (memory, passes, lanes) = COST;
        let params = Params::new(memory, passes, lanes, None).map_err(Error::internal)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let nobody = argon2.hash_password(b"nobody").map_err(Error::internal)?.to_string();
        let (jobs, queue) = sync_channel::<Job>(cores * WAITING);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..cores {
            let queue = queue.clone();
            let work = move || work_on(&queue);
            std::thread::Builder::new()
                .name("passwords".to_owned())
                .spawn(work)
                .map_err(Error::internal)?;
        }
        let current = format!("$argon2id$v=19$m={memory},t={passes},p={lanes}$");
        Ok(Self { argon2, jobs, nobody, current })
    }

    /// Whether a hash was made with today's parameters.
    #[must_use]
    pub fn is_current(&self, hash: &str) -> bool {
        hash.starts_with(&self.current)
    }

    /// Whether it may become the password of the account with this address (ASVS 6.2.11).
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` naming `field` when it is too short, too long or among the first to be guessed,
    /// which the address and what stands before its `@` are.
    pub fn check(field: &str, password: &SecretString, email: &str) -> Result<()> {
        Self::check_length(field, password)?;
        let (password, email) = (password.expose_secret().to_lowercase(), email.to_lowercase());
        let own = email.rsplit_once('@').map_or(email.as_str(), |(local, _)| local);
        if GUESSED.contains(password.as_str()) || [email.as_str(), own].contains(&&*password) {
            let wanted = "it is among the passwords that are guessed first; choose another";
            return Err(Error::invalid(field, wanted));
        }
        Ok(())
    }

    /// The part of [`Passwords::check`] that counts.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` naming `field`.
    pub fn check_length(field: &str, password: &SecretString) -> Result<()> {
        let password = password.expose_secret();
        if password.chars().count() >= SHORTEST && password.len() <= LONGEST {
            return Ok(());
        }
        let wanted = format!("at least {SHORTEST} characters and at most {LONGEST} bytes");
        Err(Error::invalid(field, wanted))
    }

    /// # Errors
    /// `RESOURCE_EXHAUSTED` when too many wait already.
    pub async fn hash(&self, password: SecretString) -> Result<String> {
        let argon2 = self.argon2.clone();
        self.work(move || {
            let hash = argon2.hash_password(password.expose_secret().as_bytes());
            hash.map(|hash| hash.to_string()).map_err(Error::internal)
        })
        .await?
    }

    /// Whether the password is the one that was hashed; without a hash it takes as long and is false.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` when too many wait already.
    pub async fn verify(&self, password: SecretString, hash: Option<&str>) -> Result<bool> {
        let argon2 = self.argon2.clone();
        let known = hash.is_some();
        let hash = hash.unwrap_or(&self.nobody).to_owned();
        self.work(move || {
            let hash = PasswordHash::new(&hash).map_err(Error::internal)?;
            let password = password.expose_secret().as_bytes();
            let fits = password.len() <= LONGEST;
            Ok(argon2.verify_password(password, &hash).is_ok() && known && fits)
        })
        .await?
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let (done, outcome) = oneshot::channel();
        let job: Job = Box::new(move || {
            // Whoever asked may have gone.
            let _ = done.send(work());
        });
        self.jobs.try_send(job).map_err(|_| Error::Exhausted {
            reason: "TOO_MANY_SIGN_INS",
            message: "too many passwords are being checked",
            retry_after: Duration::from_secs(2),
        })?;
        outcome.await.map_err(Error::internal)
    }
}

/// How much less a core prefers passwords to everything else: a check must not wait for them.
const NICE: i32 = 10;

fn work_on(queue: &Mutex<Receiver<Job>>) {
    // Of this thread only. It works as well where the system refuses.
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            // One that panics is an error to whoever waits, and to nobody else.
            Ok(job) => drop(catch_unwind(AssertUnwindSafe(job))),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_long_and_much_used_passwords_are_refused() {
        let check = |text: &str| {
            Passwords::check("password", &text.to_owned().into(), "Mia.Elan@acme.example").is_ok()
        };
        assert!(check("correct horse battery staple"));
        assert!(check("ñandú-ñandú"), "characters count, not bytes");
        for bad in [
            "",
            "sevench",
            "qwertyuiop",
            "QwertyUiop",
            "1q2w3e4r5t",
            "mia.elan",
            "mia.elan@ACME.example",
        ] {
            assert!(!check(bad), "{bad}");
        }
        assert!(check(&"x1".repeat(LONGEST / 2)) && !check(&"x".repeat(LONGEST + 1)));
    }
}
