-- Apart from the columns: while an index is made accounts can be read, while a column is added they cannot.

create unique index users_external_id on users (external_id) where external_id <> '';
