//! Sending mail.
pub struct Mail;
