"""From stored results to knowledge: tables, figures, pages."""
