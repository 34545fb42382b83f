//! argon2 verifications: few at a time, in memory that is used again.
//!
//! Each takes 19 MiB. Memory that is allocated anew for each, on whichever thread is free, stays with the allocator's
//! arena of that thread: a burst of logins then costs half a gigabyte for good.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Block, Params, Version};
use aws_lc_rs::constant_time;
use tokio::sync::Semaphore;

use crate::secret::Secret;

/// Verifications at a time: each takes 22 ms of a core.
const RUNNING_MAX: usize = 2;
/// Those that may wait for one of these.
const WAITING_MAX: usize = 256;

/// What is larger is not kept: the C library gives it back to the system by itself.
const KEPT_OCTETS_MAX: usize = 32 * 1024 * 1024;

/// Verifies hashes.
#[derive(Debug)]
pub(super) struct Hashes {
    running: Arc<Semaphore>,
    waiting: Semaphore,
    memory: Arc<Memory>,
}

/// What no verification uses at the moment: at most as many as may run at a time.
#[derive(Default)]
struct Memory(Mutex<Vec<Vec<Block>>>);

impl Hashes {
    pub(super) fn new() -> Self {
        Hashes {
            running: Arc::new(Semaphore::new(RUNNING_MAX)),
            waiting: Semaphore::new(WAITING_MAX),
            memory: Arc::default(),
        }
    }

    /// Whether the password is the hash's. `None`: too many wait, or it could not be run.
    pub(super) async fn verify(&self, hash: Secret, password: Secret) -> Option<bool> {
        let _waiting = self.waiting.try_acquire().ok()?;
        let running = Arc::clone(&self.running).acquire_owned().await.ok()?;
        let memory = Arc::clone(&self.memory);
        let verify = move || {
            // Until it has ended, also where nobody waits for it any more.
            let _running = running;
            let mut blocks = memory.lock().pop().unwrap_or_default();
            let verified = matches(&hash, &password, &mut blocks);
            if blocks.len() * Block::SIZE <= KEPT_OCTETS_MAX {
                memory.lock().push(blocks);
            }
            verified
        };
        tokio::task::spawn_blocking(verify).await.ok()
    }
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, Vec<Vec<Block>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// It holds what was made of passwords.
impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Memory")
    }
}

fn matches(hash: &Secret, password: &Secret, blocks: &mut Vec<Block>) -> bool {
    made(hash, password, blocks).unwrap_or(false)
}

/// `None`: it is no argon2 hash. The configuration lets none in that is not.
fn made(hash: &Secret, password: &Secret, blocks: &mut Vec<Block>) -> Option<bool> {
    let parsed = PasswordHash::new(hash.expose()).ok()?;
    let algorithm = Algorithm::try_from(parsed.algorithm.as_str()).ok()?;
    let version = parsed.version.map_or(Ok(Version::default()), Version::try_from).ok()?;
    let params = Params::try_from(&parsed).ok()?;
    let (salt, wanted) = (parsed.salt.as_ref()?, parsed.hash.as_ref()?);
    let count = params.block_count();
    if blocks.len() < count {
        // Exactly, and without the old ones beside them.
        *blocks = Vec::new();
        blocks.reserve_exact(count);
        blocks.resize(count, Block::default());
    }
    let mut out = vec![0; wanted.as_bytes().len()];
    let argon2 = Argon2::new(algorithm, version, params);
    let password = password.expose().as_bytes();
    argon2.hash_password_into_with_memory(password, salt.as_ref(), &mut out, &mut blocks[..count]).ok()?;
    Some(constant_time::verify_slices_are_equal(&out, wanted.as_bytes()).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use argon2::PasswordHasher;
    use argon2::password_hash::CustomizedPasswordHasher;

    #[test]
    fn memory_of_one_hash_serves_another() {
        let params = |m, t| Params::new(m, t, 1, None).unwrap();
        let argon2 = Argon2::default();
        let (small, large) = (params(8, 1), params(64, 3));
        let small =
            argon2.hash_password_customized(b"one", b"saltsalt1", Some("argon2i"), None, small).unwrap();
        let large = Argon2::from(large).hash_password(b"two").unwrap();
        let mut blocks = Vec::new();
        for _ in 0..2 {
            for (hash, good) in [(&small, "one"), (&large, "two")] {
                let hash = Secret::new(hash.to_string());
                for password in ["one", "two", ""] {
                    let found = matches(&hash, &Secret::new(password), &mut blocks);
                    assert_eq!(found, password == good, "{password}");
                }
            }
        }
        assert_eq!(blocks.len(), 64);
        assert!(!matches(&Secret::new("$argon2id$"), &Secret::new(""), &mut blocks));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn however_many_are_asked_the_memory_is_that_of_those_that_run() {
        let hash = Argon2::from(Params::new(8, 1, 1, None).unwrap()).hash_password(b"pw").unwrap();
        let hash = Secret::new(hash.to_string());
        let hashes = Hashes::new();
        let all_run = Arc::clone(&hashes.running).acquire_many_owned(RUNNING_MAX as u32).await.unwrap();
        let asked = (0..WAITING_MAX + 10).map(|_| hashes.verify(hash.clone(), Secret::new("pw")));
        let let_run = async {
            while hashes.waiting.available_permits() > 0 {
                tokio::task::yield_now().await;
            }
            drop(all_run);
        };
        let (found, ()) = tokio::join!(futures_util::future::join_all(asked), let_run);
        assert_eq!(found.iter().filter(|f| **f == Some(true)).count(), WAITING_MAX);
        assert_eq!(found.iter().filter(|f| f.is_none()).count(), 10);
        assert!((1..=RUNNING_MAX).contains(&hashes.memory.lock().len()));
    }
}
