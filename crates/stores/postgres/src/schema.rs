//! The statements that create tenure's schema, and those that call it.

use crate::config::Schema;

const TABLES: &str = include_str!("sql/tables.sql");
const FUNCTIONS: &str = include_str!("sql/functions.sql");

/// The format of the tables that this release writes.
pub(crate) const TABLES_FORMAT: i32 = 1;

/// All that `init` runs, in one transaction.
pub(crate) fn setup(schema: &Schema) -> String {
    let template = format!("{TABLES}\n{FUNCTIONS}");
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
    pub(crate) fn new(schema: &Schema) -> Self {
        let schema = schema.quoted();
        Self {
            about: format!("SELECT format, store, cluster, clock FROM {schema}.store"),
            acquire: format!(
                "SELECT * FROM {schema}.acquire_1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, \
                 $12, $13, $14)"
            ),
            renew: format!(
                "SELECT * FROM {schema}.renew_1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
            ),
            release: format!(
                "SELECT * FROM {schema}.release_1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
            ),
            read: format!("SELECT * FROM {schema}.read_1($1, $2, $3)"),
            list: format!("SELECT * FROM {schema}.list_1($1, $2, $3, $4, $5, $6)"),
            swap: format!("SELECT * FROM {schema}.swap_1($1, $2, $3, $4, $5, $6, $7)"),
            guard: format!("SELECT {schema}.guard_1($1, $2, $3, $4)"),
            admit: format!("SELECT {schema}.admit($1, $2)"),
        }
    }
}
