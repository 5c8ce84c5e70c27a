//! The flags of `serve` and `check`, made from the table of settings.

use std::path::PathBuf;
use std::sync::LazyLock;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, value_parser};

use crate::config::{SETTINGS, Settings, Shape, Sources};

/// The flags that were given.
pub(super) struct Flags {
    config: Option<PathBuf>,
    values: Vec<(&'static str, Vec<String>)>,
}

impl Flags {
    /// File, environment and flags together.
    pub(super) fn into_sources(self) -> Sources {
        Sources::new(self.config, std::env::vars_os(), self.values)
    }
}

/// The long name of each flag, in the order of [`SETTINGS`]: clap wants names that live for ever.
static NAMES: LazyLock<Vec<String>> =
    LazyLock::new(|| SETTINGS.iter().map(|setting| setting.key.replace('_', "-")).collect());

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help("Read settings from this TOML file [env: FANWIRE_CONFIG]");
        let names: &'static [String] = &NAMES;
        let defaults = Settings::default();
        let arguments = SETTINGS.iter().zip(names).map(|(setting, name)| {
            let default = match (setting.default_note, (setting.show)(&defaults)) {
                ("", shown) => shown.unwrap_or_default().replace(['"', '[', ']'], ""),
                (note, _) => note.to_owned(),
            };
            let argument = Arg::new(setting.key)
                .long(name.as_str())
                .value_name(setting.metavar)
                .help(format!("{} [default: {default}]", setting.help))
                .help_heading(setting.group.name())
                // So that a negative number is refused with a reason, not taken for a flag.
                .allow_negative_numbers(true);
            match (setting.shape)() {
                Shape::One => argument.action(ArgAction::Set),
                Shape::List => argument.action(ArgAction::Append),
                Shape::Switch => argument.num_args(0..=1).require_equals(true).default_missing_value("true"),
            }
        });
        command.arg(config).args(arguments)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let words = |key| matches.get_many::<String>(key).map(|words| words.cloned().collect());
        let values = SETTINGS.iter().filter_map(|setting| Some((setting.key, words(setting.key)?))).collect();
        Ok(Self { config: matches.get_one::<PathBuf>("config").cloned(), values })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
