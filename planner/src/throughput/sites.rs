//! Sites: sets of devices between which no way can bind.

use super::network::Network;

/// The devices of each site, and the rate of the ways between sites; none where the ways are too uneven to speak of
/// sites.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sites {
    /// Candidates by site.
    pub members: Vec<Vec<usize>>,
    /// Least rate of a way from one site to another.
    pub between: Vec<Vec<f64>>,
}

/// Divides candidates into sites at a rate that no plan exceeds. Devices are of one site where each reaches, and is
/// reached by, all others of it at this rate.
pub(crate) fn sites(network: &Network, most: f64) -> Sites {
    let n = network.pair.len();
    let near = |a: usize, b: usize| network.pair[a][b] >= most && network.pair[b][a] >= most;
    let mut members: Vec<Vec<usize>> = Vec::new();
    for device in 0..n {
        match members.iter_mut().find(|site| site.iter().all(|&other| near(device, other))) {
            Some(site) => site.push(device),
            None => members.push(vec![device]),
        }
    }
    let least = |from: &[usize], to: &[usize]| {
        let pairs = from.iter().flat_map(|&a| to.iter().map(move |&b| (a, b)));
        pairs.filter(|(a, b)| a != b).map(|(a, b)| network.pair[a][b]).fold(f64::INFINITY, f64::min)
    };
    let between = members.iter().map(|from| members.iter().map(|to| least(from, to)).collect()).collect();
    Sites { members, between }
}
