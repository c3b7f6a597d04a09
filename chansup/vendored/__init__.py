"""Code of others, unchanged, where their package would take a name that applications own.

`dotenv_parser` is ``dotenv/parser.py`` of python-dotenv 1.2.4; its license stands beside it. The
package itself would be imported as ``dotenv``, which is also the name of django-dotenv.
"""
