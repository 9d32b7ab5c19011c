-- What PgBouncer needs to check the password of Pricebook's role, which it does not learn:
--   psql -X -q -A -t -f userlist.sql > userlist.txt
SELECT format('"%s" "%s"', rolname, rolpassword) FROM pg_authid WHERE rolname = 'pricebook';
