//! The rules against a model that is too simple to be wrong: a flat list of rows.

use proptest::prelude::*;

use super::*;

fn time(seconds: i64) -> Time {
    Time {
        seconds,
        nanoseconds: 0,
    }
}

fn chain(seed: u8) -> ChainId {
    ChainId::from_bytes([seed; 32])
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    let pairs = pairs.iter();
    pairs
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

#[derive(Debug, Clone)]
enum Op {
    Create(Kind, u8, Option<u8>),
    Remote(u8, Option<u8>),
    Commit(u8, u8),
    Remove(u8),
    Update(u8, &'static str),
}

fn op() -> impl Strategy<Value = Op> {
    let name = 0..8u8;
    let parent = proptest::option::of(0..8u8);
    prop_oneof![
        (
            prop_oneof![Just(Kind::Active), Just(Kind::View)],
            name.clone(),
            parent.clone()
        )
            .prop_map(|(kind, name, parent)| Op::Create(kind, name, parent)),
        (name.clone(), parent).prop_map(|(name, parent)| Op::Remote(name, parent)),
        (name.clone(), name.clone()).prop_map(|(to, from)| Op::Commit(to, from)),
        name.clone().prop_map(Op::Remove),
        (
            name,
            prop_oneof![Just("labels"), Just("labels.x"), Just("kind"), Just("")]
        )
            .prop_map(|(name, field)| Op::Update(name, field)),
    ]
}

/// What a snapshot is to the model.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    name: String,
    id: u64,
    kind: Kind,
    parent: Option<String>,
    chain: Option<ChainId>,
}

#[derive(Default)]
struct Model {
    rows: Vec<Row>,
    ids: u64,
}

impl Model {
    fn find(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }

    fn good_parent(&self, parent: Option<&str>) -> bool {
        parent.is_none_or(|name| {
            self.find(name)
                .is_some_and(|row| row.kind == Kind::Committed)
        })
    }

    /// Does the operation if it is allowed, and says whether it was.
    fn run(&mut self, op: &Op) -> bool {
        match op {
            Op::Create(kind, name, parent) => {
                let (name, parent) = (text(*name), parent.map(text));
                let allowed = self.good_parent(parent.as_deref()) && self.find(&name).is_none();
                if allowed {
                    self.add(name, *kind, parent, None);
                }
                allowed
            }
            Op::Remote(number, parent) => {
                let (name, parent) = (text(*number), parent.map(text));
                if !self.good_parent(parent.as_deref()) {
                    return false;
                }
                let there = |row: &Row| row.chain == Some(chain(*number)) && row.parent == parent;
                if self.rows.iter().any(there) {
                    return true;
                }
                let name = match self.find(&name) {
                    None => name,
                    Some(_) => format!("{name}#{}", self.ids + 1),
                };
                self.add(name, Kind::Committed, parent, Some(chain(*number)));
                true
            }
            Op::Commit(to, from) => {
                let (to, from) = (text(*to), text(*from));
                let allowed = self.find(&to).is_none()
                    && self.find(&from).is_some_and(|row| row.kind == Kind::Active);
                if allowed {
                    let row = self.rows.iter_mut().find(|row| row.name == from).unwrap();
                    row.name = to;
                    row.kind = Kind::Committed;
                }
                allowed
            }
            Op::Remove(name) => {
                let name = text(*name);
                let is_parent = |row: &Row| row.parent.as_ref() == Some(&name);
                let allowed = self.find(&name).is_some() && !self.rows.iter().any(is_parent);
                self.rows.retain(|row| !allowed || row.name != name);
                allowed
            }
            Op::Update(name, field) => self.find(&text(*name)).is_some() && *field != "kind",
        }
    }

    fn add(&mut self, name: String, kind: Kind, parent: Option<String>, chain: Option<ChainId>) {
        self.ids += 1;
        self.rows.push(Row {
            name,
            id: self.ids,
            kind,
            parent,
            chain,
        });
    }
}

fn text(number: u8) -> String {
    format!("s{number}")
}

/// The plan of an operation; `None` where it has nothing to do.
fn plan(state: &State, op: &Op, now: i64) -> Result<Option<Change>, StateError> {
    let now = time(now);
    match op {
        Op::Create(kind, name, parent) => {
            let parent = parent.map(text);
            let created =
                state.create(*kind, &text(*name), parent.as_deref(), Labels::new(), now)?;
            Ok(Some(created.0))
        }
        Op::Remote(number, parent) => {
            let parent = parent.map(text);
            let name = text(*number);
            state.create_remote(chain(*number), &name, parent.as_deref(), Labels::new(), now)
        }
        Op::Commit(to, from) => state
            .commit(
                &text(*to),
                &text(*from),
                Usage::default(),
                Labels::new(),
                now,
            )
            .map(Some),
        Op::Remove(name) => Ok(Some(state.remove(&text(*name))?.0)),
        Op::Update(name, field) => {
            let fields: Vec<String> = match *field {
                "" => Vec::new(),
                field => vec![field.to_owned()],
            };
            let labels = labels(&[("x", "1")]);
            Ok(Some(state.update(&text(*name), &labels, &fields, now)?.0))
        }
    }
}

proptest! {
    #[test]
    fn agrees_with_the_model(ops in proptest::collection::vec(op(), 1..60)) {
        let (mut state, mut model) = (State::new([], 1), Model::default());
        for (now, op) in (0i64..).zip(&ops) {
            let planned = plan(&state, op, now);
            prop_assert_eq!(planned.is_ok(), model.run(op), "{:?}: {:?}", op, planned);
            if let Ok(Some(change)) = planned {
                state.apply(&change);
            }
            let mut rows: Vec<Row> = state
                .iter()
                .map(|(name, found)| Row {
                    name: name.clone(),
                    id: found.id,
                    kind: found.kind,
                    parent: found.parent.clone(),
                    chain: found.chain,
                })
                .collect();
            rows.sort_by_key(|row| row.id);
            prop_assert_eq!(&rows, &model.rows);
            // What is written down is what is there: a restart changes nothing.
            let reread = State::new(
                state.iter().map(|(name, row)| (name.clone(), row.as_ref().clone())),
                state.next_id,
            );
            prop_assert_eq!(&reread.children, &state.children);
            prop_assert_eq!(reread.next_id, state.next_id);
            for (_, snapshot) in state.iter() {
                // Every chain of parents ends.
                let lower = state.lower(snapshot.parent.as_deref());
                prop_assert!(lower.is_ok());
            }
        }
    }
}

fn apply(state: &mut State, change: Result<Change, StateError>) {
    state.apply(&change.unwrap());
}

fn create(state: &mut State, kind: Kind, name: &str, parent: Option<&str>) -> u64 {
    let (change, snapshot) = state
        .create(kind, name, parent, Labels::new(), time(1))
        .unwrap();
    state.apply(&change);
    snapshot.id
}

fn commit(state: &mut State, name: &str, key: &str) {
    let change = state.commit(name, key, Usage::default(), Labels::new(), time(2));
    apply(state, change);
}

#[test]
fn lower_folders_are_top_first_and_end_at_a_chain() {
    let mut state = State::new([], 1);
    let remote = state.create_remote(chain(1), "base", None, Labels::new(), time(0));
    apply(&mut state, remote.map(Option::unwrap));
    let remote = state.create_remote(chain(2), "top", Some("base"), Labels::new(), time(0));
    apply(&mut state, remote.map(Option::unwrap));
    let first = create(&mut state, Kind::Active, "a", Some("top"));
    commit(&mut state, "first", "a");
    let second = create(&mut state, Kind::Active, "b", Some("first"));
    commit(&mut state, "second", "b");
    let lower = state.lower(Some("second")).unwrap();
    assert_eq!(lower.local, [second, first]);
    assert_eq!(lower.chain, Some(chain(2)), "the nearest chain has it all");
    assert_eq!(state.lower(None).unwrap(), Lower::default());
    assert_eq!(
        state.remove("base").unwrap_err(),
        StateError::HasChildren("base".to_owned())
    );
    assert_eq!(state.chains().len(), 2);
    assert_eq!(state.folders(), HashSet::from([first, second]));
}

#[test]
fn a_chain_on_another_parent_gets_a_name_of_its_own() {
    let mut state = State::new([], 1);
    for (key, name) in [("a", "x/1/base"), ("b", "y/2/base")] {
        create(&mut state, Kind::Active, key, None);
        commit(&mut state, name, key);
    }
    let ref_label = labels(&[("containerd.io/snapshot.ref", "top"), ("empty", "")]);
    for parent in ["x/1/base", "y/2/base", "x/1/base"] {
        let made = state.create_remote(chain(9), "top", Some(parent), ref_label.clone(), time(3));
        if let Some(change) = made.unwrap() {
            state.apply(&change);
        }
    }
    let found: Vec<_> = state.iter().filter(|(_, s)| s.chain.is_some()).collect();
    assert_eq!(found.len(), 2, "one a parent, and asking twice adds none");
    for (_, snapshot) in found {
        assert_eq!(snapshot.kind, Kind::Committed);
        assert_eq!(
            snapshot.labels,
            labels(&[("containerd.io/snapshot.ref", "top")])
        );
    }
}

#[test]
fn labels_change_as_asked() {
    let mut state = State::new([], 1);
    let (change, _) = state
        .create(
            Kind::Active,
            "a",
            None,
            labels(&[("k", "1"), ("l", "2")]),
            time(1),
        )
        .unwrap();
    state.apply(&change);
    for (fields, given, expected) in [
        (
            vec!["labels.k"],
            labels(&[("k", "9"), ("l", "8")]),
            labels(&[("k", "9"), ("l", "2")]),
        ),
        (vec!["labels.l"], Labels::new(), labels(&[("k", "9")])),
        (vec![], labels(&[("n", "1")]), labels(&[("n", "1")])),
        (
            vec!["labels"],
            labels(&[("m", "1"), ("e", "")]),
            labels(&[("m", "1")]),
        ),
    ] {
        let fields: Vec<String> = fields.into_iter().map(str::to_owned).collect();
        let (change, after) = state.update("a", &given, &fields, time(7)).unwrap();
        state.apply(&change);
        assert_eq!(after.labels, expected);
        assert_eq!((after.created, after.updated), (time(1), time(7)));
    }
}

#[test]
fn refusals_in_containerds_order() {
    let mut state = State::new([], 1);
    create(&mut state, Kind::Active, "active", None);
    create(&mut state, Kind::View, "view", None);
    let create = |name: &str, parent: &str| {
        let made = state.create(Kind::Active, name, Some(parent), Labels::new(), time(1));
        made.map(|_| ()).unwrap_err()
    };
    let named = |name: &str| name.to_owned();
    assert_eq!(
        create("active", "none"),
        StateError::ParentNotFound(named("none"))
    );
    assert_eq!(
        create("new", "active"),
        StateError::ParentNotCommitted(named("active"))
    );
    assert_eq!(
        create("active", "view"),
        StateError::ParentNotCommitted(named("view"))
    );
    let commit = |name: &str, key: &str| {
        let made = state.commit(name, key, Usage::default(), Labels::new(), time(1));
        made.unwrap_err()
    };
    assert_eq!(commit("view", "none"), StateError::NotFound(named("none")));
    assert_eq!(
        commit("active", "view"),
        StateError::AlreadyExists(named("active"))
    );
    assert_eq!(commit("new", "view"), StateError::NotActive(named("view")));
    assert_eq!(commit("", "active"), StateError::NoName);
    assert_eq!(state.mountable("view").unwrap().kind, Kind::View);
    assert_eq!(
        state.remove("none").unwrap_err(),
        StateError::NotFound(named("none"))
    );
}

#[test]
fn ids_are_never_used_twice_even_after_a_lost_counter() {
    let mut state = State::new([], 1);
    let first = create(&mut state, Kind::Active, "a", None);
    let (change, _) = state.remove("a").unwrap();
    state.apply(&change);
    let second = create(&mut state, Kind::Active, "a", None);
    assert!(second > first);
    let rows = state
        .iter()
        .map(|(name, row)| (name.clone(), row.as_ref().clone()));
    let mut reread = State::new(rows, 1);
    assert!(create(&mut reread, Kind::Active, "b", None) > second);
}
