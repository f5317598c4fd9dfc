//! Sites: sets of devices between which ways are fast, while ways from one set to another are slow.

use super::network::Network;

/// The devices of each site, and the rates of the ways between sites.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sites {
    /// Candidates by site.
    pub members: Vec<Vec<usize>>,
    /// Least rate of a way from one site to another.
    pub between: Vec<Vec<f64>>,
    /// Greatest rate of a way from one site to another; zero where there is none.
    pub fastest: f64,
}

impl Sites {
    /// Sites within which every device reaches every other at `rate`.
    pub fn close(network: &Network, rate: f64) -> Self {
        let near = |a: usize, b: usize| network.pair[a][b] >= rate && network.pair[b][a] >= rate;
        let mut members: Vec<Vec<usize>> = Vec::new();
        for device in 0..network.pair.len() {
            match members.iter_mut().find(|site| site.iter().all(|&other| near(device, other))) {
                Some(site) => site.push(device),
                None => members.push(vec![device]),
            }
        }
        Self::of(network, members)
    }

    /// Sites between which no way carries `rate`.
    pub fn apart(network: &Network, rate: f64) -> Self {
        let near = |a: usize, b: usize| network.pair[a][b] >= rate || network.pair[b][a] >= rate;
        let mut members: Vec<Vec<usize>> = Vec::new();
        for device in 0..network.pair.len() {
            let (joined, others): (Vec<_>, Vec<_>) =
                members.into_iter().partition(|site| site.iter().any(|&other| near(device, other)));
            let mut site: Vec<usize> = joined.into_iter().flatten().chain([device]).collect();
            site.sort_unstable();
            members = others;
            members.push(site);
        }
        members.sort();
        Self::of(network, members)
    }

    fn of(network: &Network, members: Vec<Vec<usize>>) -> Self {
        let ways = |from: &[usize], to: &[usize]| -> Vec<f64> {
            from.iter().flat_map(|&a| to.iter().map(move |&b| network.pair[a][b])).collect()
        };
        let (mut between, mut fastest) = (vec![vec![f64::INFINITY; members.len()]; members.len()], 0.0_f64);
        for (i, from) in members.iter().enumerate() {
            for (j, to) in members.iter().enumerate().filter(|(j, _)| *j != i) {
                let rates = ways(from, to);
                between[i][j] = rates.iter().copied().fold(f64::INFINITY, f64::min);
                fastest = rates.into_iter().fold(fastest, f64::max);
            }
        }
        Self { members, between, fastest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(pair: Vec<Vec<f64>>) -> Network {
        let ends = vec![f64::INFINITY; pair.len()];
        let (source, sink) = (ends.clone(), ends);
        Network { layers: 1, stage: Vec::new(), pair, source, sink, shared: Vec::new(), stay: None }
    }

    #[test]
    fn a_chain_of_fast_ways_is_one_site_apart_and_several_close() {
        // 0 - 1 - 2 are joined in a row, 3 is far from all.
        let mut pair = vec![vec![1.0; 4]; 4];
        for (a, b) in [(0, 1), (1, 0), (1, 2), (2, 1)] {
            pair[a][b] = 9.0;
        }
        let network = network(pair);
        let apart = Sites::apart(&network, 5.0);
        assert_eq!(apart.members, [vec![0, 1, 2], vec![3]]);
        assert_eq!(apart.fastest, 1.0);
        assert_eq!(Sites::close(&network, 5.0).members, [vec![0, 1], vec![2], vec![3]]);
        assert_eq!(Sites::close(&network, 1.0).members.len(), 1);
    }
}
