//! Circles: modules that use each other, directly or by way of others.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::names::uses;
use crate::sources::{Crate, Module};

/// Modules that use each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Circle {
    /// Which, and what ties them.
    pub ties: Vec<Tie>,
}

/// What one module uses of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tie {
    /// Who uses it.
    pub user: String,
    /// Whose it is.
    pub owner: String,
    /// What it is; empty for the module itself.
    pub names: Vec<String>,
}

impl fmt::Display for Circle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for tie in &self.ties {
            let names = tie.names.iter().filter(|name| !name.is_empty());
            let names = names.cloned().collect::<Vec<_>>().join(", ");
            writeln!(formatter, "  {} uses {}: {names}", tie.user, tie.owner)?;
        }
        Ok(())
    }
}

/// The circles of a crate, each with all that ties it. A module and the modules inside it
/// count as one: a parent and its child may use each other.
#[must_use]
pub fn circles(crate_: &Crate) -> Vec<Circle> {
    let mut ties: BTreeMap<(Module, Module), BTreeSet<String>> = BTreeMap::new();
    for (user, uses) in uses(crate_) {
        for (owner, name) in uses {
            if let Some(siblings) = siblings(&user, &owner) {
                ties.entry(siblings).or_default().insert(name);
            }
        }
    }
    let mut edges: BTreeMap<&Module, BTreeSet<&Module>> = BTreeMap::new();
    for (user, owner) in ties.keys() {
        edges.entry(user).or_default().insert(owner);
    }
    let reach: BTreeMap<&Module, BTreeSet<&Module>> = edges
        .keys()
        .map(|module| (*module, reachable(&edges, module)))
        .collect();
    let reaches = |from: &Module, to: &Module| reach.get(from).is_some_and(|all| all.contains(to));
    let mut circles = Vec::new();
    let mut done = BTreeSet::new();
    for module in edges.keys().filter(|module| reaches(module, module)) {
        if done.contains(module) {
            continue;
        }
        let members: BTreeSet<&Module> = edges
            .keys()
            .filter(|other| reaches(module, other) && reaches(other, module))
            .copied()
            .collect();
        done.extend(members.iter().copied());
        let inside = ties
            .iter()
            .filter(|((user, owner), _)| members.contains(user) && members.contains(owner));
        let ties = inside.map(|((user, owner), names)| Tie {
            user: user.join("::"),
            owner: owner.join("::"),
            names: names.iter().cloned().collect(),
        });
        circles.push(Circle {
            ties: ties.collect(),
        });
    }
    circles
}

/// The two modules of one parent that these are, or are inside of.
fn siblings(user: &Module, owner: &Module) -> Option<(Module, Module)> {
    let shared = user
        .iter()
        .zip(owner)
        .take_while(|(one, other)| one == other);
    let len = shared.count() + 1;
    let sibling = |module: &Module| module.get(..len).map(<[_]>::to_vec);
    sibling(user).zip(sibling(owner))
}

fn reachable<'a>(
    edges: &BTreeMap<&'a Module, BTreeSet<&'a Module>>,
    from: &Module,
) -> BTreeSet<&'a Module> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&Module> = edges.get(from).into_iter().flatten().copied().collect();
    while let Some(module) = open.pop() {
        if reached.insert(module) {
            open.extend(edges.get(module).into_iter().flatten().copied());
        }
    }
    reached
}
