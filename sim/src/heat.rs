//! Power and heat of all devices of a replication: each alone, or together in a pile.

use crate::body::{Body, Toll};
use crate::pile::Pile;
use isotherm_core::units::SimTime;

/// Where a server's heat is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seat {
    /// Nothing is known of its power.
    Nowhere,
    /// By itself.
    Alone(usize),
    /// With others, or in several nodes: the pile, and its place in it.
    Pile(usize, usize),
}

/// Power and heat before the first request, and who has a part in which.
#[derive(Debug, Clone, Default)]
pub struct Heat {
    /// Devices of one node by themselves.
    pub bodies: Vec<Body>,
    /// The others, with the servers of each pile.
    pub piles: Vec<(Pile, Vec<usize>)>,
    /// For each server.
    pub seats: Vec<Seat>,
}

impl Heat {
    /// The same, keeping states over time.
    #[must_use]
    pub fn sampled(self) -> Self {
        let bodies = self.bodies.into_iter().map(Body::sampled).collect();
        let piles = self.piles.into_iter().map(|(pile, servers)| (pile.sampled(), servers)).collect();
        Self { bodies, piles, seats: self.seats }
    }

    /// Clock of a server as a share of full speed; 1 where nobody knows better, 0 where it stands still.
    #[must_use]
    pub fn clock(&self, server: usize) -> f64 {
        match self.seats[server] {
            Seat::Nowhere => 1.0,
            Seat::Alone(body) => self.bodies[body].clock(),
            Seat::Pile(pile, member) => self.piles[pile].0.clock(member),
        }
    }

    /// A server begins to work, or stops.
    pub fn work(&mut self, now: SimTime, server: usize, busy: bool) {
        match self.seats[server] {
            Seat::Nowhere => {}
            Seat::Alone(body) => self.bodies[body].work(now, busy),
            Seat::Pile(pile, member) => self.piles[pile].0.work(now, member, busy),
        }
    }

    /// Keeps a sample of a server, if one is wanted.
    pub fn observe(&mut self, now: SimTime, server: usize) {
        match self.seats[server] {
            Seat::Nowhere => {}
            Seat::Alone(body) => self.bodies[body].observe(now),
            Seat::Pile(pile, member) => self.piles[pile].0.observe(now, member),
        }
    }

    /// The server that stands for a server's pile in events: the first of it.
    #[must_use]
    pub fn head(&self, server: usize) -> usize {
        match self.seats[server] {
            Seat::Pile(pile, _) => self.piles[pile].1[0],
            _ => server,
        }
    }

    /// When something changes next by itself where this server sits; none where nothing does.
    #[must_use]
    pub fn due(&self, server: usize) -> Option<SimTime> {
        match self.seats[server] {
            Seat::Nowhere => None,
            Seat::Alone(body) => self.bodies[body].clock_change(),
            Seat::Pile(pile, _) => self.piles[pile].0.due(),
        }
    }

    /// What is due there happens. The servers whose clocks may be others now.
    pub fn change(&mut self, now: SimTime, server: usize) -> Vec<usize> {
        match self.seats[server] {
            Seat::Nowhere => Vec::new(),
            Seat::Alone(body) => {
                self.bodies[body].change_clock(now);
                vec![server]
            }
            Seat::Pile(pile, _) => {
                let (pile, servers) = &mut self.piles[pile];
                pile.change(now);
                servers.clone()
            }
        }
    }

    /// The first server whose battery is empty and stays so.
    #[must_use]
    pub fn spent(&self) -> Option<usize> {
        if self.piles.is_empty() { None } else { (0..self.seats.len()).find(|&server| self.is_spent(server)) }
    }

    /// Whether a server's battery is empty and stays so.
    #[must_use]
    pub fn is_spent(&self, server: usize) -> bool {
        matches!(self.seats[server], Seat::Pile(pile, member) if self.piles[pile].0.is_spent(member))
    }

    /// What each server used until now; none where nothing is known of its power.
    #[must_use]
    pub fn tolls(mut self, now: SimTime) -> Vec<Option<Toll>> {
        let toll = |seat: &Seat| match *seat {
            Seat::Nowhere => None,
            Seat::Alone(body) => Some(self.bodies[body].clone().toll(now)),
            Seat::Pile(pile, member) => Some(self.piles[pile].0.toll(now, member)),
        };
        self.seats.iter().map(toll).collect()
    }
}
