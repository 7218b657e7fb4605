//! The paths that a module names, and the modules that they lead to.

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::Visit;
use syn::{Attribute, ItemMod, ItemUse, UseTree, Visibility};

use crate::sources::{Crate, Module};

/// What a module names of others: module and name.
pub(crate) type Uses = BTreeSet<(Module, String)>;

/// For each module what it names of others.
pub(crate) fn uses(crate_: &Crate) -> BTreeMap<Module, Uses> {
    let handed_on = handed_on(crate_);
    let modules = crate_.modules.iter();
    modules
        .map(|(module, file)| {
            let mut paths = Paths::default();
            paths.visit_file(file);
            let uses = paths.found.iter().filter_map(|path| {
                let (owner, name) = owner(crate_, &handed_on, absolute(crate_, module, path)?)?;
                (owner != *module).then_some((owner, name))
            });
            (module.clone(), uses.collect())
        })
        .collect()
}

/// Names that a module hands on: under which path they really are.
type HandedOn = BTreeMap<(Module, String), Vec<String>>;

fn handed_on(crate_: &Crate) -> HandedOn {
    let mut all = HandedOn::new();
    for (module, file) in &crate_.modules {
        for item in &file.items {
            let syn::Item::Use(item) = item else { continue };
            if matches!(item.vis, Visibility::Inherited) {
                continue;
            }
            let mut found = Vec::new();
            flatten(&item.tree, &mut Vec::new(), &mut found);
            for (path, name) in found {
                if let Some(path) = absolute(crate_, module, &path) {
                    all.insert((module.clone(), name), path);
                }
            }
        }
    }
    all
}

/// The module that defines what is at this path, and its name there.
fn owner(crate_: &Crate, handed_on: &HandedOn, mut path: Vec<String>) -> Option<(Module, String)> {
    // Bounded, because source that does not compile may re-export in a loop.
    for _ in 0..16 {
        let len = (0..=path.len()).rev().find(|len| {
            crate_
                .modules
                .contains_key(path.get(..*len).unwrap_or_default())
        })?;
        let (module, rest) = path.split_at(len);
        let name = rest.first().cloned().unwrap_or_default();
        match handed_on.get(&(module.to_vec(), name.clone())) {
            Some(real) => {
                path = real.iter().chain(rest.iter().skip(1)).cloned().collect();
            }
            None => return Some((module.to_vec(), name)),
        }
    }
    None
}

/// The path from the root of the crate; `None` for what leads out of it.
fn absolute(crate_: &Crate, module: &Module, path: &[String]) -> Option<Vec<String>> {
    let (first, rest) = path.split_first()?;
    let mut base = module.clone();
    match first.as_str() {
        "crate" => return Some(rest.to_vec()),
        "self" => {}
        "super" => {
            base.pop()?;
            let above = rest.iter().take_while(|name| *name == "super").count();
            base.truncate(base.len().checked_sub(above)?);
            base.extend(rest.iter().skip(above).cloned());
            return Some(base);
        }
        _ => {
            base.push(first.clone());
            if !crate_.modules.contains_key(&base) {
                return None;
            }
        }
    }
    base.extend(rest.iter().cloned());
    Some(base)
}

#[derive(Default)]
struct Paths {
    found: BTreeSet<Vec<String>>,
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        // What is handed on counts for those who use it.
        if is_test(&item.attrs) || !matches!(item.vis, Visibility::Inherited) {
            return;
        }
        let mut found = Vec::new();
        flatten(&item.tree, &mut Vec::new(), &mut found);
        self.found.extend(found.into_iter().map(|(path, _)| path));
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if !is_test(&item.attrs) {
            syn::visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_test(&item.attrs) {
            syn::visit::visit_item_fn(self, item);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string());
        self.found.insert(names.collect());
        syn::visit::visit_path(self, path);
    }

    fn visit_visibility(&mut self, _: &'ast Visibility) {
        // `pub(in path)` uses nothing.
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        syn::visit::visit_macro(self, item);
        // `format!("{}", crate::name())`: paths, whatever the macro makes of them.
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in flat(item.tokens.clone()) {
            match token {
                proc_macro2::TokenTree::Ident(name) if colons == 2 || path.is_empty() => {
                    path.push(name.to_string());
                    colons = 0;
                }
                proc_macro2::TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                token => {
                    self.found.insert(std::mem::take(&mut path));
                    colons = 0;
                    if let proc_macro2::TokenTree::Ident(name) = token {
                        path.push(name.to_string());
                    }
                }
            }
        }
        self.found.insert(path);
    }
}

/// All tokens, those in brackets too.
fn flat(tokens: proc_macro2::TokenStream) -> Vec<proc_macro2::TokenTree> {
    let mut all = Vec::new();
    for token in tokens {
        match token {
            proc_macro2::TokenTree::Group(group) => {
                // What stands before brackets does not go on in them.
                all.push(proc_macro2::Punct::new(';', proc_macro2::Spacing::Alone).into());
                all.extend(flat(group.stream()));
                all.push(proc_macro2::Punct::new(';', proc_macro2::Spacing::Alone).into());
            }
            token => all.push(token),
        }
    }
    all
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || attribute.path().is_ident("cfg")
                && attribute
                    .parse_args::<syn::Path>()
                    .is_ok_and(|path| path.is_ident("test"))
    })
}

/// The paths of a tree of `use`, each with the name that it gets.
fn flatten(tree: &UseTree, prefix: &mut Vec<String>, found: &mut Vec<(Vec<String>, String)>) {
    let mut add = |prefix: &[String], name: &syn::Ident, given: &syn::Ident| {
        let mut path = prefix.to_vec();
        if name != "self" {
            path.push(name.to_string());
        }
        found.push((path, given.to_string()));
    };
    match tree {
        UseTree::Path(path) => {
            prefix.push(path.ident.to_string());
            flatten(&path.tree, prefix, found);
            prefix.pop();
        }
        UseTree::Name(name) => add(prefix, &name.ident, &name.ident),
        UseTree::Rename(rename) => add(prefix, &rename.ident, &rename.rename),
        UseTree::Glob(_) => found.push((prefix.clone(), "*".to_owned())),
        UseTree::Group(group) => {
            for tree in &group.items {
                flatten(tree, prefix, found);
            }
        }
    }
}
