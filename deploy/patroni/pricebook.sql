-- The role and the database of Pricebook; once, on the leader, as postgres:
--   psql -v password="$(cat /root/pricebook.password)" -f pricebook.sql
\set ON_ERROR_STOP on
CREATE ROLE pricebook LOGIN PASSWORD :'password';
CREATE DATABASE pricebook OWNER pricebook;
