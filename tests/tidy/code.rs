//! Reads source files into modules, the names they declare and the paths they mention.

use std::collections::BTreeMap;

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::ext::IdentExt;
use syn::visit::{self, Visit};
use syn::{Attribute, Ident, Item, Meta, UseTree, Visibility};

/// Text by path from the root of the project, such as `src/hub/mod.rs`.
pub(crate) type Sources = BTreeMap<String, String>;

/// The names of a path, such as `["super", "HubHandle"]`.
pub(crate) type Names = Vec<String>;

/// Everything the checks need from the sources of some crates.
#[derive(Default)]
pub(crate) struct Code {
    pub(crate) modules: Vec<Module>,
    pub(crate) mentions: Vec<Mention>,
    pub(crate) words: Vec<Word>,
    /// The functions in `impl` blocks: the path of the module, the type and the function.
    methods: Vec<Names>,
}

/// A module, in a file of its own or inline.
pub(crate) struct Module {
    pub(crate) file: String,
    /// The path from the root of the crate, which is empty for the root.
    pub(crate) path: Names,
    /// The index of the module around this one. The root of a crate has none.
    pub(crate) parent: Option<usize>,
    /// True if the module is compiled for tests only.
    pub(crate) test: bool,
    /// A name has several definitions where it is both a type and a function, for example.
    pub(crate) names: BTreeMap<String, Vec<Definition>>,
    /// The paths before `::*`.
    pub(crate) globs: Vec<Names>,
}

/// The meaning of a name in a module.
pub(crate) enum Definition {
    Item,
    /// A macro that the modules inside this one can call by its name alone.
    Macro,
    Module(usize),
    /// Another path, which a `use` declaration gave this name.
    Alias(Names),
}

/// One place in the code that names a path.
pub(crate) struct Mention {
    /// The index of the module that contains the mention.
    pub(crate) module: usize,
    pub(crate) path: Names,
    pub(crate) line: usize,
    /// True for `path::*`.
    pub(crate) glob: bool,
    /// True for `pub use` and its restricted forms.
    pub(crate) re_export: bool,
    pub(crate) test: bool,
}

/// One identifier in the code, also in the input of a macro.
pub(crate) struct Word {
    pub(crate) file: String,
    pub(crate) line: usize,
    pub(crate) text: String,
    pub(crate) test: bool,
}

impl Code {
    /// Reads the crates with these root files, and every module that they declare.
    pub(crate) fn read(sources: &Sources, roots: &[&str]) -> Self {
        let mut reader = Reader { sources, code: Self::default(), module: 0, test: false };
        for root in roots {
            reader.module = reader.add_module(root.to_string(), Names::new(), None);
            reader.read_file();
        }
        reader.code
    }

    /// Returns the paths of all modules, items and methods, without the name of the crate.
    pub(crate) fn symbols(&self) -> Vec<Names> {
        let mut symbols = self.methods.clone();
        for module in &self.modules {
            symbols.push(module.path.clone());
            let is_item = |definition: &Definition| matches!(definition, Definition::Item);
            let items = module.names.iter().filter(|(_, all)| all.iter().any(is_item));
            symbols.extend(items.map(|(name, _)| joined(&module.path, name)));
        }
        symbols
    }
}

/// Returns `path` followed by `name`.
fn joined(path: &[String], name: &str) -> Names {
    path.iter().cloned().chain([name.to_owned()]).collect()
}

/// Returns the name without a leading `r#`.
fn text(ident: &Ident) -> String {
    ident.unraw().to_string()
}

/// Walks the syntax trees. `module` and `test` describe the current place of the walk.
struct Reader<'a> {
    sources: &'a Sources,
    code: Code,
    module: usize,
    test: bool,
}

impl Reader<'_> {
    fn add_module(&mut self, file: String, path: Names, parent: Option<usize>) -> usize {
        let (names, globs) = (BTreeMap::new(), Vec::new());
        self.code.modules.push(Module { file, path, parent, test: self.test, names, globs });
        self.code.modules.len() - 1
    }

    /// Walks the whole file of the current module.
    fn read_file(&mut self) {
        let file = &self.code.modules[self.module].file;
        let tree = syn::parse_file(&self.sources[file]);
        let tree = tree.unwrap_or_else(|error| panic!("{file}: can't parse: {error}"));
        self.with_attributes(&tree.attrs, |reader| {
            reader.code.modules[reader.module].test = reader.test;
            reader.visit_file(&tree);
        });
    }

    /// Runs `walk` for code that has these attributes.
    fn with_attributes(&mut self, attributes: &[Attribute], walk: impl FnOnce(&mut Self)) {
        let before = self.test;
        self.test |= attributes.iter().any(|attribute| is_for_tests_only(&attribute.meta));
        walk(self);
        self.test = before;
    }

    fn declare(&mut self, name: &str, definition: Definition) {
        let names = &mut self.code.modules[self.module].names;
        names.entry(name.to_owned()).or_default().push(definition);
    }

    fn mention(&mut self, path: Names, line: usize, glob: bool, re_export: bool) {
        let (module, test) = (self.module, self.test);
        self.code.mentions.push(Mention { module, path, line, glob, re_export, test });
    }

    /// Returns the file of the module `path`, which is declared in the current file without a body.
    fn file_of(&self, path: &[String]) -> String {
        let root = &self.code.modules[self.root()].file;
        let folder = root.rsplit_once('/').expect("a root file is in a folder").0;
        let stem = format!("{folder}/{}", path.join("/"));
        let files = [format!("{stem}.rs"), format!("{stem}/mod.rs")];
        let file = files.into_iter().find(|file| self.sources.contains_key(file));
        file.unwrap_or_else(|| panic!("{stem}.rs: there is no file for this module"))
    }

    /// Returns the root of the crate that contains the current module.
    fn root(&self) -> usize {
        let mut module = self.module;
        while let Some(parent) = self.code.modules[module].parent {
            module = parent;
        }
        module
    }

    /// Records the name that one leaf of a `use` declaration brings into scope.
    fn declare_use(&mut self, leaf: Leaf, re_export: bool) {
        self.mention(leaf.path.clone(), leaf.line, leaf.name.is_none(), re_export);
        match leaf.name {
            Some(name) => self.declare(&name, Definition::Alias(leaf.path)),
            None => self.code.modules[self.module].globs.push(leaf.path),
        }
    }

    /// Records the paths in tokens that the parser does not parse, such as the input of a macro.
    fn walk_tokens(&mut self, tokens: TokenStream) {
        let trees: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < trees.len() {
            match &trees[at] {
                TokenTree::Group(group) if !is_visibility(&trees, at) => {
                    self.walk_tokens(group.stream());
                }
                TokenTree::Ident(_) => {
                    at = self.walk_path(&trees, at, &[]);
                    continue;
                }
                _ => {}
            }
            at += 1;
        }
    }

    /// Records the path that begins at `at`, below `prefix`. Returns the index after the path.
    fn walk_path(&mut self, trees: &[TokenTree], at: usize, prefix: &[String]) -> usize {
        let (names, end) = self.names_at(trees, at);
        let line = trees[at].span().start().line;
        let path = [prefix, &names].concat();
        if follows_colons_or_dot(trees, at) {
            return end;
        }
        match trees.get(end + 2).filter(|_| are_colons(trees, end)) {
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                self.walk_use_group(group.stream(), &path);
                return end + 3;
            }
            Some(TokenTree::Punct(punct)) if punct.as_char() == '*' => {
                self.mention(path, line, true, false);
                return end + 3;
            }
            // One name alone is a variable or a field more often than an import.
            _ if path.len() > 1 || is_type_or_call(trees, at) => {
                self.mention(path, line, false, false);
            }
            _ => {}
        }
        end
    }

    /// Records the paths in the braces of a `use` declaration that is in the input of a macro.
    fn walk_use_group(&mut self, tokens: TokenStream, prefix: &[String]) {
        let trees: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < trees.len() {
            at = match &trees[at] {
                TokenTree::Ident(ident) if ident == "as" => at + 2,
                TokenTree::Ident(ident) if ident == "self" => {
                    self.mention(prefix.to_vec(), ident.span().start().line, false, false);
                    at + 1
                }
                TokenTree::Ident(_) => self.walk_path(&trees, at, prefix),
                TokenTree::Punct(punct) if punct.as_char() == '*' => {
                    self.mention(prefix.to_vec(), punct.span().start().line, true, false);
                    at + 1
                }
                _ => at + 1,
            };
        }
    }

    /// Returns the names of the path that begins at `at`, and the index after them.
    fn names_at(&mut self, trees: &[TokenTree], at: usize) -> (Names, usize) {
        let (mut names, mut at) = (Names::new(), at);
        while let Some(TokenTree::Ident(ident)) = trees.get(at) {
            self.visit_ident(ident);
            names.push(text(ident));
            at += 1;
            if !are_colons(trees, at) || !matches!(trees.get(at + 2), Some(TokenTree::Ident(_))) {
                break;
            }
            at += 2;
        }
        (names, at)
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let (attributes, name) = attributes_and_name(item);
        self.with_attributes(attributes, |reader| {
            if let Some(name) = name {
                let is_macro = matches!(item, Item::Macro(_));
                let definition = if is_macro { Definition::Macro } else { Definition::Item };
                reader.declare(&text(name), definition);
            }
            visit::visit_item(reader, item);
        });
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let hides = item.attrs.iter().any(|attribute| hides_modules(&attribute.meta));
        assert!(!hides, "mod {}: the checks can't follow #[path] and #[macro_use]", item.ident);
        self.visit_ident(&item.ident);

        let (parent, around) = (self.module, &self.code.modules[self.module]);
        let path = joined(&around.path, &text(&item.ident));
        let file = match item.content {
            Some(_) => around.file.clone(),
            None => self.file_of(&path),
        };
        let module = self.add_module(file, path, Some(parent));
        self.declare(&text(&item.ident), Definition::Module(module));

        self.module = module;
        match &item.content {
            Some((_, items)) => items.iter().for_each(|item| self.visit_item(item)),
            None => self.read_file(),
        }
        self.module = parent;
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        visit::visit_item_use(self, item);
        // `::name` is another crate.
        if item.leading_colon.is_none() {
            let mut leaves = Vec::new();
            collect_leaves(&item.tree, &mut Names::new(), &mut leaves);
            for leaf in leaves {
                self.declare_use(leaf, is_re_export(&item.vis));
            }
        }
    }

    fn visit_item_extern_crate(&mut self, item: &'ast syn::ItemExternCrate) {
        assert!(item.ident != "self", "extern crate self: the checks can't follow it");
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if let syn::Type::Path(type_) = &*item.self_ty {
            let last = type_.path.segments.last().expect("a path has a segment");
            let path = joined(&self.code.modules[self.module].path, &last.ident.to_string());
            for inner in &item.items {
                if let syn::ImplItem::Fn(function) = inner {
                    self.code.methods.push(joined(&path, &function.sig.ident.to_string()));
                }
            }
        }
        visit::visit_item_impl(self, item);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.with_attributes(&function.attrs, |reader| {
            visit::visit_impl_item_fn(reader, function);
        });
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        self.with_attributes(&local.attrs, |reader| visit::visit_local(reader, local));
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        self.with_attributes(&field.attrs, |reader| visit::visit_field(reader, field));
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            let names = path.segments.iter().map(|segment| text(&segment.ident));
            let line = path.segments[0].ident.span().start().line;
            self.mention(names.collect(), line, false, false);
        }
        // Generic arguments contain paths, too.
        visit::visit_path(self, path);
    }

    /// Does nothing, because the path in `pub(in crate::hub)` is not an import.
    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}

    /// Visits the input of macros and attributes, and syntax that the parser does not know.
    fn visit_token_stream(&mut self, tokens: &'ast TokenStream) {
        self.walk_tokens(tokens.clone());
    }

    fn visit_ident(&mut self, ident: &'ast Ident) {
        let file = self.code.modules[self.module].file.clone();
        let line = ident.span().start().line;
        self.code.words.push(Word { file, line, text: text(ident), test: self.test });
    }
}

/// One path of a `use` declaration, and the name that the declaration gives it. A glob has no name.
struct Leaf {
    path: Names,
    name: Option<String>,
    line: usize,
}

/// Splits a `use` declaration into its paths. `prefix` is the path before `tree`.
fn collect_leaves(tree: &UseTree, prefix: &mut Names, leaves: &mut Vec<Leaf>) {
    match tree {
        UseTree::Path(path) => {
            prefix.push(text(&path.ident));
            collect_leaves(&path.tree, prefix, leaves);
            prefix.pop();
        }
        UseTree::Group(group) => {
            group.items.iter().for_each(|tree| collect_leaves(tree, prefix, leaves));
        }
        UseTree::Name(name) => leaves.push(leaf(prefix, &name.ident, None)),
        UseTree::Rename(rename) => leaves.push(leaf(prefix, &rename.ident, Some(&rename.rename))),
        UseTree::Glob(glob) => {
            let line = glob.star_token.spans[0].start().line;
            leaves.push(Leaf { path: prefix.clone(), name: None, line });
        }
    }
}

/// Returns the leaf for `prefix::ident as rename`, where `prefix::self` is `prefix`.
fn leaf(prefix: &[String], ident: &Ident, rename: Option<&Ident>) -> Leaf {
    let line = ident.span().start().line;
    let is_prefix = ident == "self" && !prefix.is_empty();
    let path = match is_prefix {
        true => prefix.to_vec(),
        false => joined(prefix, &text(ident)),
    };
    let name = rename.map(text).or_else(|| path.last().cloned());
    Leaf { path, name, line }
}

/// Returns true if `meta` is `test`, or a `cfg` that holds in tests only.
fn is_for_tests_only(meta: &Meta) -> bool {
    meta.path().is_ident("test")
        || meta.path().is_ident("cfg") && inner(meta).iter().any(needs_test)
}

/// Returns true if the condition of a `cfg` holds in tests only. A build for fuzzing is a test, too.
fn needs_test(condition: &Meta) -> bool {
    match condition {
        Meta::Path(path) => path.is_ident("test") || path.is_ident("fuzzing"),
        Meta::List(list) if list.path.is_ident("all") => inner(condition).iter().any(needs_test),
        Meta::List(list) if list.path.is_ident("any") => {
            let conditions = inner(condition);
            !conditions.is_empty() && conditions.iter().all(needs_test)
        }
        _ => false,
    }
}

/// Returns true for `path` and `macro_use`, also inside `cfg_attr`.
fn hides_modules(meta: &Meta) -> bool {
    let path = meta.path();
    path.is_ident("path")
        || path.is_ident("macro_use")
        || path.is_ident("cfg_attr") && inner(meta).iter().any(hides_modules)
}

/// Returns the list in the parentheses of `meta`, such as the conditions of `all(…)`.
fn inner(meta: &Meta) -> Vec<Meta> {
    let parser = syn::punctuated::Punctuated::<Meta, syn::Token![,]>::parse_terminated;
    let list = meta.require_list().and_then(|list| list.parse_args_with(parser));
    list.map(|list| list.into_iter().collect()).unwrap_or_default()
}

/// Returns true for `pub` and its restricted forms other than `pub(self)`, which is private.
fn is_re_export(visibility: &Visibility) -> bool {
    match visibility {
        Visibility::Inherited => false,
        Visibility::Restricted(restricted) => !restricted.path.is_ident("self"),
        Visibility::Public(_) => true,
    }
}

/// Returns the attributes of an item, and the name that it declares, if any. The names of modules and of
/// `use` declarations are read elsewhere.
fn attributes_and_name(item: &Item) -> (&[Attribute], Option<&Ident>) {
    match item {
        Item::Const(item) => (&item.attrs, Some(&item.ident)),
        Item::Enum(item) => (&item.attrs, Some(&item.ident)),
        Item::Fn(item) => (&item.attrs, Some(&item.sig.ident)),
        Item::Macro(item) => (&item.attrs, item.ident.as_ref()),
        Item::Static(item) => (&item.attrs, Some(&item.ident)),
        Item::Struct(item) => (&item.attrs, Some(&item.ident)),
        Item::Trait(item) => (&item.attrs, Some(&item.ident)),
        Item::TraitAlias(item) => (&item.attrs, Some(&item.ident)),
        Item::Type(item) => (&item.attrs, Some(&item.ident)),
        Item::Union(item) => (&item.attrs, Some(&item.ident)),
        Item::ExternCrate(item) => (&item.attrs, None),
        Item::ForeignMod(item) => (&item.attrs, None),
        Item::Impl(item) => (&item.attrs, None),
        Item::Mod(item) => (&item.attrs, None),
        Item::Use(item) => (&item.attrs, None),
        _ => (&[], None),
    }
}

fn is_punct(trees: &[TokenTree], at: Option<usize>, wanted: char) -> bool {
    let tree = at.and_then(|at| trees.get(at));
    matches!(tree, Some(TokenTree::Punct(punct)) if punct.as_char() == wanted)
}

/// Returns true if `::` is at `at`.
fn are_colons(trees: &[TokenTree], at: usize) -> bool {
    is_punct(trees, Some(at), ':') && is_punct(trees, Some(at + 1), ':')
}

/// Returns true if the name at `at` does not begin a path of this crate, because it is the end of `::name`,
/// `Type::<T>::name` or `value.name`, or is a lifetime.
fn follows_colons_or_dot(trees: &[TokenTree], at: usize) -> bool {
    let after_colons = at >= 2 && are_colons(trees, at - 2);
    let is_range = at >= 2 && is_punct(trees, Some(at - 2), '.');
    let before = at.checked_sub(1);
    let after_dot = is_punct(trees, before, '.') && !is_range;
    after_colons || after_dot || is_punct(trees, before, '\'')
}

/// Returns true if the group at `at` belongs to `pub(…)`.
fn is_visibility(trees: &[TokenTree], at: usize) -> bool {
    let before = at.checked_sub(1).map(|before| &trees[before]);
    matches!(before, Some(TokenTree::Ident(ident)) if ident == "pub")
        && matches!(&trees[at], TokenTree::Group(g) if g.delimiter() == Delimiter::Parenthesis)
}

/// Returns true if the name at `at` looks like a type, a function that is called, or a macro.
fn is_type_or_call(trees: &[TokenTree], at: usize) -> bool {
    let is_upper = trees[at].to_string().starts_with(|c: char| c.is_uppercase());
    let is_call = match trees.get(at + 1) {
        Some(TokenTree::Group(group)) => group.delimiter() == Delimiter::Parenthesis,
        Some(TokenTree::Punct(punct)) => punct.as_char() == '!',
        _ => false,
    };
    is_upper || is_call
}
