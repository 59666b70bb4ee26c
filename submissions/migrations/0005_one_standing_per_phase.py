import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('submissions', '0004_standings_of_the_development_phase'),
    ]

    operations = [
        migrations.AlterField(
            model_name='standing',
            name='phase',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='standings', to='challenges.phase'),
        ),
        migrations.AddConstraint(
            model_name='standing',
            constraint=models.UniqueConstraint(fields=('submission', 'phase'), name='one_standing_per_phase'),
        ),
    ]
