//! Tokens that were made for a while.

use std::io::Write;
use std::time::Duration;

use vmetal_api::{ApiTokenRequest, Client, Role};

use crate::args::{TokenCommand, TokenRole};
use crate::error::CliError;
use crate::text::{Table, clean, span};

pub(super) async fn run(client: &Client, command: TokenCommand, out: &mut impl Write) -> Result<(), CliError> {
    match command {
        TokenCommand::List => {
            let mut table = Table::new(&["ID", "ROLE", "ENDS IN", "MADE BY", "REASON"]);
            for token in client.api_tokens().await? {
                let left = span(i64::try_from(token.expires_in.as_secs()).unwrap_or(i64::MAX));
                table.row(vec![token.id, token.role.as_str().to_owned(), left, token.by, token.reason]);
            }
            out.write_all(table.render().as_bytes())?;
        }
        TokenCommand::Create { role, minutes, reason } => {
            let role = match role {
                TokenRole::Reader => Role::Reader,
                TokenRole::Operator => Role::Operator,
            };
            let ttl = Duration::from_secs(u64::from(minutes) * 60);
            let request = ApiTokenRequest { role, ttl, reason, request_id: String::new() };
            let made = client.create_api_token(&request).await?;
            // Alone on the standard output: for a variable of a script.
            writeln!(out, "{}", made.token.expose())?;
        }
        TokenCommand::Revoke { id } => {
            client.revoke_api_token(&id).await?;
            writeln!(out, "token {}  revoked", clean(&id))?;
        }
    }
    Ok(out.flush()?)
}
