"""A small Django project: one page, with a query and a template, as `startproject` sets it up."""
