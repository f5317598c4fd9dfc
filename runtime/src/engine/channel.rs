//! The hand-over between stages: a bounded queue whose receiver watches before it sleeps.
//!
//! A pass changes hands by moving its buffers: nothing is copied. What a hand-over costs is the wake-up of the next stage
//! and the cache lines it fetches; the probe measures it through this very queue.

use crate::cpu::team::{Patience, Waiting, at_work_on};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

struct Shared<T> {
    state: Mutex<State<T>>,
    /// Length of the queue, to be watched without the lock.
    length: AtomicUsize,
    /// Whether one end is gone.
    closed: AtomicBool,
    capacity: usize,
    /// How the receiver waits.
    patience: Patience,
    /// The core it waits on; where it has none of its own, others may always need it.
    core: Option<usize>,
    changed: Condvar,
}

struct State<T> {
    queue: VecDeque<T>,
    /// Threads that sleep on `changed`: without any, waking would be a system call for nothing.
    sleeping: usize,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // A panic cannot leave the queue half changed: nothing in between can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sleep<'a>(&'a self, mut state: MutexGuard<'a, State<T>>) -> MutexGuard<'a, State<T>> {
        state.sleeping += 1;
        let mut state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        state.sleeping -= 1;
        state
    }

    /// Publishes the queue's new length and wakes whoever sleeps.
    fn update(&self, state: MutexGuard<'_, State<T>>) {
        self.length.store(state.queue.len(), Ordering::SeqCst);
        let wake = state.sleeping > 0;
        drop(state);
        if wake {
            self.changed.notify_all();
        }
    }

    /// Whether others are at work where the receiver waits.
    fn is_core_needed(&self) -> bool {
        self.core.is_none_or(|core| at_work_on(core) > 0)
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    fn close(&self) {
        let state = self.lock();
        self.closed.store(true, Ordering::SeqCst);
        drop(state);
        self.changed.notify_all();
    }
}

/// The sending end. Dropping it ends the channel once it is empty.
pub(crate) struct Sender<T>(Arc<Shared<T>>);

/// The receiving end. Dropping it ends the channel.
pub(crate) struct Receiver<T>(Arc<Shared<T>>);

/// A channel that holds at most `capacity` values, whose receiver waits with `patience` on a core.
pub(crate) fn bounded<T>(capacity: usize, patience: Patience, core: Option<usize>) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State { queue: VecDeque::with_capacity(capacity), sleeping: 0 }),
        length: AtomicUsize::new(0),
        closed: AtomicBool::new(false),
        capacity,
        patience,
        core,
        changed: Condvar::new(),
    });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

impl<T> Sender<T> {
    /// Hands a value over, waiting while the channel is full. False when the receiver is gone; the value is dropped.
    pub(crate) fn send(&self, value: T) -> bool {
        let shared = &*self.0;
        let mut state = shared.lock();
        while state.queue.len() >= shared.capacity && !shared.is_closed() {
            state = shared.sleep(state);
        }
        if shared.is_closed() {
            return false;
        }
        state.queue.push_back(value);
        shared.update(state);
        true
    }
}

impl<T> Receiver<T> {
    /// The next value, if one is there.
    pub(crate) fn try_receive(&self) -> Option<T> {
        if self.0.length.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let mut state = self.0.lock();
        let value = state.queue.pop_front();
        self.0.update(state);
        value
    }

    /// Waits until a value is there, the channel has ended, or it is `deadline`.
    pub(crate) fn wait(&self, deadline: Instant) {
        let shared = &*self.0;
        let mut waiting = Waiting::new(shared.patience);
        let there = || shared.length.load(Ordering::SeqCst) > 0 || shared.is_closed();
        while !there() && Instant::now() < deadline {
            if waiting.pause(shared.is_core_needed()) {
                let left = deadline.saturating_duration_since(Instant::now());
                let mut state = shared.lock();
                if state.queue.is_empty() && !shared.is_closed() {
                    state.sleeping += 1;
                    let slept = shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
                    state = slept.0;
                    state.sleeping -= 1;
                }
            }
        }
    }

    /// The next value, waiting for it. None when the sender is gone and the channel empty.
    pub(crate) fn receive(&self) -> Option<T> {
        let shared = &*self.0;
        let mut waiting = Waiting::new(shared.patience);
        while shared.length.load(Ordering::SeqCst) == 0 && !shared.is_closed() {
            if waiting.pause(shared.is_core_needed()) {
                break;
            }
        }
        let mut state = shared.lock();
        while state.queue.is_empty() {
            if shared.is_closed() {
                return None;
            }
            state = shared.sleep(state);
        }
        let value = state.queue.pop_front();
        shared.update(state);
        value
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_arrive_in_order_through_a_channel_smaller_than_their_number() {
        let (sender, receiver) = bounded(2, Patience::Sleep, None);
        let sending = std::thread::spawn(move || (0..1000).all(|i| sender.send(i)));
        for i in 0..1000 {
            assert_eq!(receiver.receive(), Some(i));
        }
        assert_eq!(receiver.receive(), None);
        assert!(sending.join().expect("the sender does not panic"));
    }

    #[test]
    fn a_wait_ends_with_a_value_or_at_its_deadline() {
        for patience in [Patience::Watch, Patience::Glance, Patience::Sleep] {
            let (sender, receiver) = bounded(1, patience, None);
            receiver.wait(Instant::now());
            assert_eq!(receiver.try_receive(), None::<u8>);
            let sending = std::thread::spawn(move || sender.send(7));
            // No clock decides this test: the deadline is out of reach, so only the value ends the wait.
            receiver.wait(Instant::now() + std::time::Duration::from_secs(3600));
            assert_eq!(receiver.try_receive(), Some(7));
            assert!(sending.join().expect("the sender does not panic"));
        }
    }

    #[test]
    fn a_sender_learns_that_the_receiver_is_gone() {
        let (sender, receiver) = bounded(1, Patience::Watch, None);
        assert!(sender.send(1));
        drop(receiver);
        assert!(!sender.send(2));
    }
}
