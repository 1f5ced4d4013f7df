//! The statements that create tenure's schema, and those that call it.

use crate::config::Schema;
use crate::layout::Hamode;

const TABLES: &str = include_str!("sql/tables.sql");
const FUNCTIONS: &str = include_str!("sql/functions.sql");
const HAMODE: &str = include_str!("sql/hamode.sql");

/// The format of the tables that this release writes.
pub(crate) const TABLES_FORMAT: i32 = 1;

/// All that `init` runs, in one transaction.
pub(crate) fn setup(schema: &Schema) -> String {
    let template = format!("{TABLES}\n{FUNCTIONS}\n{HAMODE}");
    template.replace("{schema}", &schema.quoted()).replace("{channel}", &schema.channel())
}

/// The statements of one schema.
pub(crate) struct Statements {
    pub(crate) about: String,
    pub(crate) acquire: String,
    pub(crate) renew: String,
    pub(crate) release: String,
    pub(crate) read: String,
    pub(crate) list: String,
    pub(crate) swap: String,
    pub(crate) guard: String,
    pub(crate) admit: String,
}

impl Statements {
    /// Those of a schema whose names are shared by a layout, or not.
    pub(crate) fn new(schema: &Schema, hamode: Option<&Hamode>) -> Self {
        let schema = schema.quoted();
        // The functions of a layout are asked as the others are, after what they share with.
        let (function, shared) = match hamode {
            Some(hamode) => (format!("{schema}.hamode_"), hamode.arguments()),
            None => (format!("{schema}."), String::new()),
        };
        Self {
            about: format!("SELECT format, store, cluster, clock FROM {schema}.store"),
            acquire: format!(
                "SELECT * FROM {function}acquire_1({shared}$1, $2, $3, $4, $5, $6, $7, $8, $9, \
                 $10, $11, $12, $13, $14)"
            ),
            renew: format!(
                "SELECT * FROM {function}renew_1({shared}$1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
            ),
            release: format!(
                "SELECT * FROM {function}release_1({shared}$1, $2, $3, $4, $5, $6, $7, $8, $9)"
            ),
            read: format!("SELECT * FROM {function}read_1({shared}$1, $2, $3)"),
            list: format!("SELECT * FROM {function}list_1({shared}$1, $2, $3, $4, $5, $6)"),
            swap: format!("SELECT * FROM {function}swap_1({shared}$1, $2, $3, $4, $5, $6, $7)"),
            guard: format!("SELECT {schema}.guard_1($1, $2, $3, $4)"),
            admit: format!("SELECT {schema}.admit($1, $2)"),
        }
    }
}
